select session_id, partition, counter, checkpoints, policy, first_recorded_at, last_recorded_at, erased_at
from waypost.sessions
where session_id = $1
