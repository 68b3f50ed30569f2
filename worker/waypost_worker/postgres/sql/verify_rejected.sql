-- $1 partition, $2 the bound of the sample or null; see recovery/sampling.py
select "offset", session_id, command_id, code, message, key, value, headers, recorded_at
from waypost.rejected_commands
where partition = $1
  and ($2::integer is null or key is null or ('x' || left(md5(key), 7))::bit(28)::integer < $2)
