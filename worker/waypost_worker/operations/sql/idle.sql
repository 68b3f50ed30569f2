-- $1 how many are enough, $2 days: sessions without a command for so long that still hold checkpoints that may expire.
select count(*)
from (
    select
    from waypost.sessions s
    where s.active_minute < now() - $2::integer * interval '1 day'
      and s.checkpoints > 0
      and exists (select from waypost.checkpoints c where c.session_id = s.session_id and not c.pinned)
    limit $1
) as idle
