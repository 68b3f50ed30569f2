-- Other schemas of this database than $1 that look like Waypost's, such as those that 'waypost replay --schema' builds
select n.nspname as name
from pg_namespace n
where n.nspname <> $1
  and n.nspname ~ '^[a-z_][a-z0-9_]{0,62}$'
  and has_schema_privilege(n.oid, 'usage')
  and (
      select count(*)
      from pg_class c
      where c.relnamespace = n.oid
        and c.relkind = 'r'
        and c.relname in ('sessions', 'checkpoints', 'recent_commands', 'rejected_commands')
        and has_table_privilege(c.oid, 'select')
  ) = 4
order by 1
