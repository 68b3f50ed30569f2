select
    to_regclass('waypost.shard') is not null as has_shard,
    to_regclass('waypost.partitions') is not null as has_partitions
