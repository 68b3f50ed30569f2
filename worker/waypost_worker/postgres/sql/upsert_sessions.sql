-- $1 partition; then session id, counter, policy, live checkpoints, recorded_at of the last command
insert into waypost.sessions as s
    (session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at)
select t.session_id, $1, t.counter, t.policy, t.checkpoints, t.recorded_at, t.recorded_at
from unnest($2::text[], $3::bigint[], $4::jsonb[], $5::integer[], $6::timestamptz[])
    as t (session_id, counter, policy, checkpoints, recorded_at)
on conflict (session_id) do update
set counter = excluded.counter,
    policy = excluded.policy,
    checkpoints = excluded.checkpoints,
    last_recorded_at = excluded.last_recorded_at
