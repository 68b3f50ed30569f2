-- The first table that holds rows, or null
select t.name
from (
    values
        (1, 'partitions', exists (select from waypost.partitions)),
        (2, 'sessions', exists (select from waypost.sessions)),
        (3, 'checkpoints', exists (select from waypost.checkpoints)),
        (4, 'recent_commands', exists (select from waypost.recent_commands)),
        (5, 'outbox', exists (select from waypost.outbox)),
        (6, 'rejected_commands', exists (select from waypost.rejected_commands))
) as t (place, name, filled)
where t.filled
order by t.place
limit 1
