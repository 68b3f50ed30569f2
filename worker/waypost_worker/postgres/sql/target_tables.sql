-- $1 the schema's name
select
    obj_description(to_regnamespace($1::text)::oid, 'pg_namespace') as mark,
    to_regclass('waypost.partitions') is not null as exists,
    exists (
        select from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    ) as has_tables
