-- $1 the schema's name
select
    current_setting('server_version_num')::integer as version,
    current_setting('server_encoding') as encoding,
    exists (select from pg_namespace where nspname = $1) as has_schema,
    to_regclass('waypost.migrations') is not null as has_migrations,
    -- Whether a transaction that begins now could write. On a standby, transactions are read-only as well.
    pg_is_in_recovery() as is_standby,
    current_setting('transaction_read_only') = 'on' as is_read_only
