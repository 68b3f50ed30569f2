-- Roles that read for one tenant in schema $1, and what undermines that: tables without their policies, roles that no
-- policy binds, roles that are not listed, and listed roles that are no members. No row if there is no such role.
with recursive reader as (
    select oid from pg_roles where rolname = 'waypost_tenant_reader'
),
members as (
    select oid from reader
    union
    -- Whoever created a role administers it, and reads nothing by that.
    select a.member from pg_auth_members a join members m on a.roleid = m.oid where not a.admin_option
),
tables as (
    select c.oid, c.relname, c.relowner, c.relrowsecurity, reader.oid as reader
    from reader, pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $1 and c.relkind in ('r', 'p')
)
select
    (select count(*) from waypost.tenant_roles t where t.tenant is not null) as bound,
    (select count(*) from waypost.tenant_roles t where t.tenant is null) as named,
    array(
        select t.relname::text
        from tables t
        where has_table_privilege(t.reader, t.oid, 'select')
            and exists (
                select from pg_attribute a where a.attrelid = t.oid and a.attname in ('session_id', 'payload', 'tenant')
            )
            and not (
                t.relrowsecurity
                and exists (
                    select from pg_policy p
                    where p.polrelid = t.oid and not p.polpermissive and t.reader = any (p.polroles)
                )
            )
        order by t.relname
    ) as open,
    array(
        select r.rolname::text
        from members m
        join pg_roles r on r.oid = m.oid
        where r.rolsuper or r.rolbypassrls or exists (select from tables t where t.relowner = m.oid)
        order by r.rolname
    ) as unbound,
    array(
        select r.rolname::text
        from members m
        join pg_roles r on r.oid = m.oid
        where r.rolcanlogin and not exists (select from waypost.tenant_roles t where t.role_name = r.rolname)
        order by r.rolname
    ) as unlisted,
    array(
        select t.role_name::text
        from waypost.tenant_roles t
        where not exists (select from members m join pg_roles r on r.oid = m.oid where r.rolname = t.role_name)
        order by t.role_name
    ) as strangers
from reader
