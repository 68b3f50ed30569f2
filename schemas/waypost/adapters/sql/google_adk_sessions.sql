-- Records of sessions from $1 up to $2, with the data of those that state follows from.
select
    session_id, number, name, command_id, metadata, recorded_at, false as chosen,
    case when name <> 'event' or metadata -> 'delta' = 'true'::jsonb then data else ''::bytea end as data
from waypost.checkpoints
where session_id >= $1 and session_id < $2 and name <> 'part'
order by session_id, number
