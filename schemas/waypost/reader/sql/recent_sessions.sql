-- $1, $2 before this time and session id; $3 from this prefix, $4 to below what follows it; $5 active since; $6 limit
-- The index is on the minute; within one, a few are sorted.
select session_id, partition, counter, checkpoints, policy, first_recorded_at, last_recorded_at, erased_at
from waypost.sessions
where active_minute <= date_bin('1 minute', $1::timestamptz, 'epoch')
  and active_minute >= date_bin('1 minute', $5::timestamptz, 'epoch')
  and (last_recorded_at, session_id) < ($1::timestamptz, $2)
  and last_recorded_at >= $5
  and session_id >= $3
  and session_id < $4
order by active_minute desc, last_recorded_at desc, session_id desc
limit $6
