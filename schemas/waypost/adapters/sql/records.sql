-- All records of a session but the parts of large ones.
select number, name, data, command_id, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1 and name <> 'part'
order by number
