-- Where this database stands in a list of several: at most one row, and none in a database that holds all partitions.
create table waypost.shard (
    only_row    boolean     primary key default true check (only_row),
    shard       integer     not null check (shard >= 0 and shard < shards),
    shards      integer     not null check (shards > 1),
    set_id      uuid        not null,        -- of all databases of the list
    recorded_at timestamptz not null default now()
);
