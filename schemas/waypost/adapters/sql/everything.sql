select number, name, data, metadata, recorded_at, taken_at
from waypost.checkpoints
where session_id = $1
order by number
