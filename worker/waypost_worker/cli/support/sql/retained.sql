-- $1 a session id, or null for sessions without a policy of their own; $2 after this session id; $3 with more
-- checkpoints than that; $4 limit. What retention looks at, without data.
select s.session_id, s.partition, s.counter, s.policy, e.*
from (
    select session_id, partition, counter, policy
    from waypost.sessions
    where session_id > $2
      and case when $1::text is null then policy is null else session_id = $1 end
      and checkpoints > $3
    order by session_id
    limit $4
) as s
cross join lateral (
    select
        array_agg(c.number order by c.number),
        array_agg(c.name order by c.number),
        array_agg(c.recorded_at order by c.number),
        array_agg(c.pinned order by c.number)
    from waypost.checkpoints c
    where c.session_id = s.session_id
) as e (numbers, names, recorded_at, pinned)
order by s.session_id
