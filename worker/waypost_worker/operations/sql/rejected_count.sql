-- Filters as in rejected_purge.sql
select code, count(*) as commands, min(recorded_at) as oldest, max(recorded_at) as newest
from waypost.rejected_commands
where ($1::text is null or session_id = $1)
  and ($2::text is null or code = $2)
  and ($3::timestamptz is null or recorded_at >= $3)
  and ($4::timestamptz is null or recorded_at < $4)
  and ($5::integer[] is null or (partition, "offset") in (select * from unnest($5::integer[], $6::bigint[])))
group by code
order by code
