-- Roles with the least rights: waypost_migrator owns the schema, waypost_worker changes what is in its tables,
-- waypost_reader only reads. To be run in Waypost's database by an administrator: before the first migration, once
-- more after it (only then there is a table of migrations to be closed), and at any time again. Roles are made
-- without a password: give them one, or let pg_hba.conf take their certificates.
do $$
declare
    wanted text;
begin
    foreach wanted in array array['waypost_migrator', 'waypost_worker', 'waypost_reader'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            execute format('create role %I login nosuperuser nocreatedb nocreaterole', wanted);
        end if;
        execute format('grant connect on database %I to %I', current_database(), wanted);
    end loop;
    if to_regnamespace('waypost') is null then
        create schema waypost authorization waypost_migrator;
    end if;
end
$$;

-- A forgotten query or transaction of a reader holds back vacuum and, with it, the worker. A limit that is set already
-- stays. Readers can change their own limits: they end mistakes, not attacks.
do $$
declare
    wanted record;
begin
    for wanted in
        select *
        from (values
            ('statement_timeout', '2min'),
            ('idle_in_transaction_session_timeout', '5min'),
            ('idle_session_timeout', '1h')
        ) as limits (name, longest)
        where exists (select from pg_settings where pg_settings.name = limits.name)
            and not exists (
                select
                from pg_db_role_setting, unnest(setconfig) as each (setting)
                where setrole = 'waypost_reader'::regrole
                    and setdatabase in (0, (select oid from pg_database where datname = current_database()))
                    and split_part(each.setting, '=', 1) = limits.name
            )
    loop
        execute format(
            'alter role waypost_reader in database %I set %I = %L', current_database(), wanted.name, wanted.longest
        );
    end loop;
end
$$;

revoke all on schema waypost from public;
grant usage on schema waypost to waypost_worker, waypost_reader;

-- What is there.
grant select, insert, update, delete on all tables in schema waypost to waypost_worker;
grant select on all tables in schema waypost to waypost_reader;

-- What later migrations make.
alter default privileges for role waypost_migrator in schema waypost
    grant select, insert, update, delete on tables to waypost_worker;
alter default privileges for role waypost_migrator in schema waypost
    grant select on tables to waypost_reader;

-- Whoever could write there could have workers take another schema for their own, or readers read for any tenant.
do $$
declare
    closed text;
begin
    foreach closed in array array['migrations', 'tenant_roles'] loop
        if to_regclass('waypost.' || closed) is not null then
            execute format('revoke insert, update, delete on waypost.%I from waypost_worker', closed);
        end if;
    end loop;
end
$$;
