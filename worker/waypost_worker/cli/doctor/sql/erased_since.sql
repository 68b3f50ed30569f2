-- $1 partition, $2 when the oldest record of its log was recorded: erased sessions that the log may still hold commands of
select
    count(*) as sessions,
    min(first_recorded_at) as oldest,
    max(erased_at) as newest,
    (array_agg(session_id order by first_recorded_at))[1] as session_id
from waypost.sessions
where erased_at >= $2 and partition = $1
