-- $1 partition, $2 and $3 a share of the sessions, or null for all; see recovery/sampling.py
select session_id, counter, policy, checkpoints, first_recorded_at, last_recorded_at, erased_at
from waypost.sessions
where partition = $1
  and (
      $2::integer is null
      or ('x' || left(md5(session_id), 7))::bit(28)::integer between $2 and $3::integer - 1
  )
