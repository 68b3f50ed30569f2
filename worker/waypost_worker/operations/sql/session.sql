-- A session with the partition's default policy, and the offset of the last command that was applied to it
select
    s.session_id,
    s.partition,
    s.counter,
    s.checkpoints,
    s.policy,
    s.first_recorded_at,
    s.last_recorded_at,
    s.erased_at,
    p.default_policy,
    p.next_offset,
    greatest(
        (select max(position) from waypost.recent_commands where session_id = $1),
        (select max(position) from waypost.checkpoints where session_id = $1)
    ) as last_position
from waypost.sessions s
join waypost.partitions p on p.partition = s.partition
where s.session_id = $1
