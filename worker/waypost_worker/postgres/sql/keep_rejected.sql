insert into waypost.rejected_commands
    (partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at)
select $1, t.*
from unnest(
    $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bytea[], $9::bytea[],
    $10::timestamptz[]
) as t
