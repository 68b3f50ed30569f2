-- Filters that are null don't count: $1 session id, $2 code, $4 and $5 session ids from and before; $3 limit
select partition, "offset", session_id, command_id, code, message, recorded_at
from waypost.rejected_commands
where ($1::text is null or session_id = $1)
  and ($2::text is null or code = $2)
  and ($4::text is null or session_id >= $4 and session_id < $5)
order by recorded_at desc, partition, "offset" desc
limit $3
