create table waypost.sessions (
    session_id        text        collate "C" primary key,
    partition         integer     not null,
    counter           bigint      not null,
    policy            jsonb,                 -- null: the partition's default policy applies
    checkpoints       integer     not null,  -- live ones
    first_recorded_at timestamptz not null,
    last_recorded_at  timestamptz not null
) with (fillfactor = 70); -- updated by every batch that touches the session: room for HOT updates

create table waypost.checkpoints (
    session_id  text        collate "C" not null,
    number      bigint      not null,
    imported_id text,
    name        text        not null,
    taken_at    timestamptz not null,
    recorded_at timestamptz not null,
    data        bytea       not null,
    metadata    jsonb       not null,
    pinned      boolean     not null,
    command_id  text,
    position    bigint      not null,        -- offset of the command that made it
    primary key (session_id, number)
) with (
    -- Retention deletes as fast as agents create: dead rows are to be reused soon, not at a fifth of the table,
    -- and by a vacuum that is not slowed down below the rate of the deletes.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_vacuum_cost_limit = 2000
);

-- For get(id) of what was imported. Costs a create nothing. Reads by name or time look through the session, which
-- has at most max_checkpoints rows: an index for them would cost every create.
create index checkpoints_imported on waypost.checkpoints (session_id, imported_id, number)
where imported_id is not null;

-- lz4 is about three times as fast as pglz, where the server was built with it.
do $$
begin
    if exists (
        select from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals)
    ) then
        alter table waypost.checkpoints alter column data set compression lz4;
    end if;
end
$$;

-- Command ids that no live checkpoint carries: the memory that makes a repeated command harmless.
create table waypost.recent_commands (
    session_id text   collate "C" not null,
    position   bigint not null,
    command_id text   not null,
    number     bigint,
    primary key (session_id, position)
) with (autovacuum_vacuum_scale_factor = 0.02);

create table waypost.partitions (
    partition        integer primary key,
    partitions       integer not null,
    next_offset      bigint  not null default 0,
    epoch            bigint  not null default 0,
    emitted          bigint  not null default -1,
    results_offset   bigint  not null default 0,
    anchor           bytea,
    producer_id      bigint,
    producer_epoch   integer,
    default_policy   jsonb,
    default_commands jsonb   not null default '[]'
) with (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

create table waypost.outbox (
    partition    integer not null,
    first_offset bigint  not null,
    last_offset  bigint  not null,
    payload      bytea   not null,
    primary key (partition, last_offset)     -- confirmed, and deleted, by last offset
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- Written once, read almost never: compressing it would cost more than it saves.
alter table waypost.outbox alter column payload set storage external;

create table waypost.rejected_commands (
    partition   integer     not null,
    "offset"    bigint      not null,
    session_id  text,
    command_id  text,
    code        text        not null,
    message     text        not null,
    key         bytea,
    value       bytea,
    headers     bytea       not null,        -- JSON list of [name, value as Latin-1 text or null]
    recorded_at timestamptz not null,
    primary key (partition, "offset")
);

-- Data that jsonb refuses (U+0000, for one) is shown as its text.
create function waypost.data_as_json(data bytea) returns jsonb
    language plpgsql immutable strict parallel safe
as $$
begin
    return convert_from(data, 'UTF8')::jsonb;
exception
    when others then
        return to_jsonb(convert_from(data, 'UTF8'));
end
$$;

create view waypost.checkpoint_json as
select
    session_id || ':' || number as id,
    session_id,
    number,
    name,
    taken_at as "timestamp",
    recorded_at,
    waypost.data_as_json(data) as data,
    metadata,
    pinned,
    imported_id
from waypost.checkpoints;
