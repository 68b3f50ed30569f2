-- $1 after this session id, $2 prefix, $3 limit
select session_id, partition, counter, checkpoints, policy, first_recorded_at, last_recorded_at
from waypost.sessions
where session_id > $1 and starts_with(session_id, $2)
order by session_id
limit $3
