-- One rejected command. Of its value at most $3 bytes, or all of it if that is null; kept_bytes is its length.
select
    partition, "offset", session_id, command_id, code, message, recorded_at, key, headers,
    case when $3::integer is null then value else substring(value for $3::integer) end as value,
    octet_length(value) as kept_bytes, value_bytes, headers_bytes
from waypost.rejected_commands
where partition = $1 and "offset" = $2
