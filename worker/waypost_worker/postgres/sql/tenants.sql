-- Row-level security for roles that read for one tenant: waypost_tenant_reader and its members. An administrator runs
-- this in Waypost's database after the migrations, and again after each upgrade. All of it happens or nothing does.
do $$
declare
    wanted record;
begin
    set local lock_timeout = '5s';
    if to_regclass('waypost.tenant_roles') is null then
        raise exception 'the schema has no table tenant_roles. Nothing was changed. Run the migrations first';
    end if;
    if not exists (select from pg_roles where rolname = 'waypost_tenant_reader') then
        create role waypost_tenant_reader login nosuperuser nocreatedb nocreaterole;
    end if;
    execute format('grant connect on database %I to waypost_tenant_reader', current_database());

    -- Every role sees every row, but a restrictive policy comes on top for members of waypost_tenant_reader. They see
    -- nothing of the outbox, which holds results of all sessions. The tables' owner is subject to neither policy. A
    -- subquery is evaluated once, and not for each row; "0" is the character after "/".
    for wanted in
        select
            name,
            'session_id >= (select waypost.reader_tenant()) || ''/'' '
            || 'and session_id < (select waypost.reader_tenant()) || ''0''' as visible
        from unnest(array['sessions', 'checkpoints', 'recent_commands', 'rejected_commands']) as name
        union all
        select 'outbox', 'false'
        union all
        select 'tenant_roles', 'role_name in (session_user, current_user)'
    loop
        execute format('drop policy if exists everyone on waypost.%I', wanted.name);
        execute format('drop policy if exists one_tenant on waypost.%I', wanted.name);
        execute format('create policy everyone on waypost.%I using (true)', wanted.name);
        execute format(
            'create policy one_tenant on waypost.%I as restrictive to waypost_tenant_reader using (%s)',
            wanted.name,
            wanted.visible
        );
        execute format('alter table waypost.%I enable row level security', wanted.name);
    end loop;

    -- Keeps the policies out of the worker's statements, even the one that is always true.
    if exists (select from pg_roles where rolname = 'waypost_worker' and not rolbypassrls) then
        begin
            alter role waypost_worker bypassrls;
        exception
            when insufficient_privilege then
                raise notice 'waypost_worker stays subject to the policy "everyone", which lets it see all rows';
        end;
    end if;

    grant usage on schema waypost to waypost_tenant_reader;
    grant select
        on waypost.sessions, waypost.checkpoints, waypost.recent_commands, waypost.rejected_commands,
            waypost.checkpoint_json, waypost.shard, waypost.tenant_roles
        to waypost_tenant_reader;
    -- How far each partition is, for readers that wait for it, and the default policy.
    grant select (partition, partitions, next_offset, default_policy) on waypost.partitions to waypost_tenant_reader;
    insert into waypost.tenant_roles (role_name) values ('waypost_tenant_reader') on conflict do nothing;

    -- A role that can write there can read for any tenant.
    if exists (select from pg_roles where rolname = 'waypost_worker') then
        revoke insert, update, delete on waypost.tenant_roles from waypost_worker;
    end if;

    -- As for waypost_reader (see roles.sql). Members log in with limits of their own.
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
                where setrole = 'waypost_tenant_reader'::regrole
                    and setdatabase in (0, (select oid from pg_database where datname = current_database()))
                    and split_part(each.setting, '=', 1) = limits.name
            )
    loop
        execute format(
            'alter role waypost_tenant_reader in database %I set %I = %L',
            current_database(), wanted.name, wanted.longest
        );
    end loop;
end
$$;
