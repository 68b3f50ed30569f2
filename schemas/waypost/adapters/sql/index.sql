-- All records of a session without their data.
select number, name, ''::bytea as data, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1
order by number
