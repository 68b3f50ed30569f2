-- $1 partition, $2 and $3 a share of the sessions, or null for all; see recovery/sampling.py
select
    c.session_id, c.number, c.imported_id, c.name, c.taken_at, c.recorded_at, c.data, c.metadata, c.pinned,
    c.command_id, c.position
from waypost.checkpoints c
join waypost.sessions s on s.session_id = c.session_id
where s.partition = $1
  and (
      $2::integer is null
      or ('x' || left(md5(s.session_id), 7))::bit(28)::integer between $2 and $3::integer - 1
  )
