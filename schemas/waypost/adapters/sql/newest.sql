-- The newest records named $2 that contain the metadata $3, at most $4, newest first.
select number, name, data, command_id, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1 and name = $2 and metadata @> $3::jsonb
order by number desc
limit $4
