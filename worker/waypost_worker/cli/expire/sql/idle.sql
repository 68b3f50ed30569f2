-- $1 after this session id; $2 from this prefix, $3 to below what follows it; $4 idle since; $5 whether pinned
-- checkpoints count; $6 limit.
-- Of a session that has nothing left to remove, an expiry forgets the command ids, but for its own.
select s.session_id, s.partition, s.checkpoints, s.last_recorded_at, p.pinned
from waypost.sessions s
cross join lateral (
    select case when s.checkpoints = 0 then 0 else (
        select count(*) from waypost.checkpoints c where c.session_id = s.session_id and c.pinned
    ) end as pinned
) as p
where s.session_id > $1
  and s.session_id >= $2
  and s.session_id < $3
  and s.last_recorded_at < $4
  and s.erased_at is null
  and (
      s.checkpoints > case when $5 then 0 else p.pinned end
      or exists (select from waypost.recent_commands r where r.session_id = s.session_id offset 1)
  )
order by s.session_id
limit $6
