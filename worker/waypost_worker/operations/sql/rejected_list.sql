select partition, "offset", session_id, command_id, code, message, recorded_at
from waypost.rejected_commands
where ($1::text is null or session_id = $1) and ($2::text is null or code = $2)
order by recorded_at desc, partition, "offset" desc
limit $3
