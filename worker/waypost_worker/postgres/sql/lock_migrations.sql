-- One migration at a time in a database; ends with the transaction, so it works behind poolers.
select pg_advisory_xact_lock(7239175460012)
