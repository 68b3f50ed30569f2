-- Each table of schema $1: what the role lacks there of what a worker needs, and how autovacuum keeps up.
select
    c.relname as name,
    array(
        select p.privilege
        from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) with ordinality as p (privilege, place)
        where not has_table_privilege(c.oid, p.privilege)
            and (p.privilege = 'SELECT' or c.relname not in ('migrations', 'tenant_roles'))
        order by p.place
    ) as lacking,
    exists (
        select from unnest(c.reloptions) as o (option)
        where o.option in ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=0')
    ) as not_vacuumed,
    coalesce(s.n_dead_tup, 0) as dead,
    coalesce(s.n_live_tup, 0) as live
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_stat_all_tables s on s.relid = c.oid
where n.nspname = $1 and c.relkind in ('r', 'p')
order by c.relname
