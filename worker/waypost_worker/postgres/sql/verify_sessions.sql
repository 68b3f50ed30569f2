-- $1 partition, $2 the bound of the sample or null; see recovery/sampling.py
select session_id, counter, policy, checkpoints, first_recorded_at, last_recorded_at
from waypost.sessions
where partition = $1 and ($2::integer is null or ('x' || left(md5(session_id), 7))::bit(28)::integer < $2)
