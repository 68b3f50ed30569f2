select
    c.session_id, c.number, c.imported_id, c.name, c.taken_at, c.recorded_at, c.data, c.metadata, c.pinned,
    c.command_id, c.position
from waypost.sessions s
join waypost.checkpoints c on c.session_id = s.session_id
where s.partition = $1
