-- One migration at a time in a database. Locks end with the transaction, so this works behind poolers, and
-- none is waited for or held for long: not by a migrator that froze, not in front of those who use a table.
set local lock_timeout = '60s';
set local idle_in_transaction_session_timeout = '60s';
select pg_advisory_xact_lock(7239175460012);
