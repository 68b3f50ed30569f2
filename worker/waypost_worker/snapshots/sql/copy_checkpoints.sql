select t.*
from waypost.sessions s
join waypost.checkpoints t on t.session_id = s.session_id
where s.partition = $1
