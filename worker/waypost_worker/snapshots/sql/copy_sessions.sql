select session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at, erased_at
from waypost.sessions
where partition = $1
