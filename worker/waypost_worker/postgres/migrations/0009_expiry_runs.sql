-- The last complete run of 'waypost expire' for each beginning of session ids that it was given; all sessions: empty. Not
-- from the log, and of no meaning to workers: 'waypost doctor' shows it.
create table waypost.expiry_runs (
    prefix   text        collate "C" primary key,
    idle     interval    not null,
    ended_at timestamptz not null,
    expired  bigint      not null,           -- sessions
    removed  bigint      not null            -- checkpoints
);
