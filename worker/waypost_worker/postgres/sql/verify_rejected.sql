-- $1 partition, $2 and $3 a share of the sessions, or null for all; see recovery/sampling.py
select "offset", session_id, command_id, code, message, key, value, headers, recorded_at, value_bytes,
    headers_bytes
from waypost.rejected_commands
where partition = $1
  and (
      $2::integer is null
      -- Of a key only so much is kept; an earlier version kept all of it.
      or ('x' || left(md5(coalesce(substring(key from 1 for 800), convert_to("offset"::text, 'UTF8'))), 7))::bit(28)::integer
      between $2 and $3::integer - 1
  )
