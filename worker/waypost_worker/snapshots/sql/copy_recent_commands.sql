select r.session_id, r.position, r.command_id, r.number
from waypost.sessions s
join waypost.recent_commands r on r.session_id = s.session_id
where s.partition = $1
