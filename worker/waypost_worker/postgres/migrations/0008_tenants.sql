-- Roles that read for one tenant, the first segment of a session id: which one, or null if they name it for each
-- transaction. Row-level security itself is not part of the schema: tenants.sql enables it where it is wanted.
create table waypost.tenant_roles (
    role_name name primary key,
    tenant    text collate "C" check (tenant <> '' and strpos(tenant, '/') = 0 and length(tenant) < 200)
);

-- The tenant whose rows a transaction may see. An error if there is none: no rows would look like no sessions. The role
-- that logged in decides, so "set role" leads to no other tenant; if it is not listed, the current role does.
create function waypost.reader_tenant() returns text
    language plpgsql stable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
declare
    bound  record;
    wanted text := nullif(current_setting('waypost_reader.tenant', true), '');
begin
    select r.role_name, r.tenant into bound
    from waypost.tenant_roles r
    where r.role_name in (session_user, current_user)
    order by r.role_name = session_user desc
    limit 1;
    if not found then
        raise insufficient_privilege using
            message = format('the role %I reads for one tenant, and it is not listed in tenant_roles', session_user),
            hint = 'An administrator adds it there; see docs/tenants.md.';
    elsif bound.tenant is null and wanted is null then
        raise insufficient_privilege using
            message = format('the role %I reads for one tenant, and this transaction names none', bound.role_name),
            hint = 'Pass the reader a tenant: Reader(dsn, tenant=…).';
    elsif bound.tenant <> wanted then
        raise insufficient_privilege using
            message = format('the role %I reads for the tenant %L, not for %L', bound.role_name, bound.tenant, wanted),
            hint = 'Pass the reader that tenant, or none.';
    end if;
    return coalesce(bound.tenant, wanted);
end
$$;

-- With the rights of whoever reads it, and not of its owner: row-level security would not apply.
alter view waypost.checkpoint_json set (security_invoker = true);
