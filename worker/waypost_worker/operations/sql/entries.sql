-- A session's checkpoints without their data and metadata, lowest number first
select
    number,
    name,
    taken_at,
    recorded_at,
    position,
    command_id,
    imported_id,
    pinned,
    octet_length(data) as size
from waypost.checkpoints
where session_id = $1
order by number
