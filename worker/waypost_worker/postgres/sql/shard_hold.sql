-- $1 any number; ends with the transaction
select pg_advisory_xact_lock($1)
