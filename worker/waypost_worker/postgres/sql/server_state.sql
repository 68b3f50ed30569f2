select
    extract(epoch from clock_timestamp())::float8 as now,
    current_user as role,
    (select rolsuper from pg_roles where rolname = current_user) as is_superuser,
    pg_is_in_recovery() as is_standby,
    (select age(datfrozenxid) from pg_database where datname = current_database()) as frozen_age,
    (
        select max(extract(epoch from now() - xact_start))::float8
        from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
    ) as oldest_transaction
