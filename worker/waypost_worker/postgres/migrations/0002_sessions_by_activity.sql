-- For listing sessions by their last activity. An index on last_recorded_at itself would turn every update of a
-- session into a new row with new entries in all indexes; one on its minute does so once a minute.
alter table waypost.sessions
add column active_minute timestamptz not null
generated always as (date_bin('1 minute', last_recorded_at, 'epoch'::timestamptz)) stored;

create index sessions_by_activity on waypost.sessions (active_minute);
