-- $1 how many are enough, $2 for how long: sessions without a command since that still hold checkpoints that may expire.
select count(*)
from (
    select
    from waypost.sessions s
    where s.active_minute < now() - $2::interval
      and s.checkpoints > 0
      and exists (select from waypost.checkpoints c where c.session_id = s.session_id and not c.pinned)
    limit $1
) as idle
