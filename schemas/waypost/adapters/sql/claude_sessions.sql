-- Sessions from $1 up to $2 that have a main transcript: its newest batch, the tag of its first one, and, if $3, how
-- many it has.
select s.session_id, newest.recorded_at, newest.metadata, counted.first, counted.batches
from waypost.sessions as s
cross join lateral (
    select c.recorded_at, c.metadata
    from waypost.checkpoints as c
    where c.session_id = s.session_id and c.name = 'entries' and c.metadata -> 'subpath' = 'null'::jsonb
    order by c.number desc
    limit 1
) as newest
left join lateral (
    select (array_agg(c.metadata ->> 'tag' order by c.number))[1] as first, count(*) as batches
    from waypost.checkpoints as c
    where c.session_id = s.session_id and c.name = 'entries' and c.metadata -> 'subpath' = 'null'::jsonb
) as counted on $3
where s.session_id >= $1 and s.session_id < $2
order by s.session_id
