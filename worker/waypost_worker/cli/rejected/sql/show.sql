select partition, "offset", session_id, command_id, code, message, recorded_at, key, headers, value, value_bytes, headers_bytes
from waypost.rejected_commands
where partition = $1 and "offset" = $2
