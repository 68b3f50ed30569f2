select t.*
from waypost.sessions s
join waypost.recent_commands t on t.session_id = s.session_id
where s.partition = $1
