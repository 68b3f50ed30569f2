-- $1 partition, $2 and $3 a share of the sessions, or null for all; see recovery/sampling.py
select c.session_id, c.position, c.command_id, c.number
from waypost.recent_commands c
join waypost.sessions s on s.session_id = c.session_id
where s.partition = $1
  and (
      $2::integer is null
      or ('x' || left(md5(s.session_id), 7))::bit(28)::integer between $2 and $3::integer - 1
  )
