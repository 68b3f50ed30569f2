-- $1 partition, $2 and $3 a share of the sessions, or null for all; see recovery/sampling.py
select "offset", session_id, command_id, code, message, key, value, headers, recorded_at
from waypost.rejected_commands
where partition = $1
  and (
      $2::integer is null
      or ('x' || left(md5(coalesce(key, convert_to("offset"::text, 'UTF8'))), 7))::bit(28)::integer
      between $2 and $3::integer - 1
  )
