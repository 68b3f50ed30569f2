-- $1 how many partitions the log has, of which this database, $2 of $3, holds every $3rd. Rows that no partition's
-- own look would come upon; a few are enough.
(
    select 'checkpoints' as "table", c.session_id || ':' || c.number as key
    from waypost.checkpoints c
    where not exists (select from waypost.sessions s where s.session_id = c.session_id)
    limit 10
)
union all
(
    select 'recent_commands', c.session_id || ' at ' || c.position
    from waypost.recent_commands c
    where not exists (select from waypost.sessions s where s.session_id = c.session_id)
    limit 10
)
union all
(
    select 'sessions', session_id
    from waypost.sessions
    where partition not between 0 and $1 - 1 or partition % $3 <> $2
    limit 10
)
union all
(
    select 'rejected_commands', partition || '/' || "offset"
    from waypost.rejected_commands
    where partition not between 0 and $1 - 1 or partition % $3 <> $2
    limit 10
)
union all
(
    select 'outbox', partition || '/' || last_offset
    from waypost.outbox
    where partition not between 0 and $1 - 1 or partition % $3 <> $2
    limit 10
)
union all
(
    select 'partitions', partition::text
    from waypost.partitions
    where partition not between 0 and $1 - 1 or partition % $3 <> $2
    limit 10
)
