-- $1 a number that another connection holds: locks are a database's own
select pg_try_advisory_xact_lock($1)
