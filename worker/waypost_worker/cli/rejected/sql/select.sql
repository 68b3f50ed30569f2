-- The refused commands that match, in the order of their partitions, some after ($9, $10). Filters that are null
-- don't count: $1 session id, $2 code, $3 and $4 from and before (recorded_at), $5 and $6 places. $7 and $8 are
-- partitions and their next offsets when this began: what is refused since is not looked at.
select r.partition, r."offset", r.session_id, r.command_id, r.code, r.message, r.recorded_at, r.key, r.headers,
    r.value, value_bytes, headers_bytes
from waypost.rejected_commands r
join unnest($7::integer[], $8::bigint[]) as b (partition, next_offset)
    on b.partition = r.partition and r."offset" < b.next_offset
where ($1::text is null or r.session_id = $1)
  and ($2::text is null or r.code = $2)
  and ($3::timestamptz is null or r.recorded_at >= $3)
  and ($4::timestamptz is null or r.recorded_at < $4)
  and (
      $5::integer[] is null
      or (r.partition, r."offset") in (select * from unnest($5::integer[], $6::bigint[]))
  )
  and (r.partition, r."offset") > ($9::integer, $10::bigint)
order by r.partition, r."offset"
limit $11
