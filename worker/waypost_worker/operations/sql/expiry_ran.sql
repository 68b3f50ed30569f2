-- $1 beginning of the session ids, $2 idle for, $3 sessions expired, $4 checkpoints removed
insert into waypost.expiry_runs (prefix, idle, ended_at, expired, removed)
values ($1, $2, now(), $3, $4)
on conflict (prefix) do update
set idle = excluded.idle, ended_at = excluded.ended_at, expired = excluded.expired, removed = excluded.removed
