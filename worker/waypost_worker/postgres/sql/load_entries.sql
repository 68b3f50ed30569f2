select session_id, number, name, taken_at, recorded_at, position, command_id, imported_id, pinned
from waypost.checkpoints
where session_id = any ($1::text[])
