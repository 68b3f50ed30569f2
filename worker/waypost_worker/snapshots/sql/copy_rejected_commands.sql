select partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at, value_bytes,
    headers_bytes
from waypost.rejected_commands
where partition = $1
