-- Whether a transaction that begins now could write, and if not, why. On a standby, transactions are read-only as well.
select pg_is_in_recovery() as is_standby, current_setting('transaction_read_only') = 'on' as is_read_only
