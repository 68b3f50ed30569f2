-- $1 after this session id; $2 from this prefix, $3 to below what follows it; $4 limit
select session_id, checkpoints
from waypost.sessions
where session_id > $1 and session_id >= $2 and session_id < $3
order by session_id
limit $4
