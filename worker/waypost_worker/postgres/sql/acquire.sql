-- $1 partition, $2 partition count. Raises the epoch: from here on no older owner commits. "other_count" is of
-- any partition: one that was added has no row yet that could tell. "noted" is the database's place among several.
insert into waypost.partitions as p (partition, partitions, epoch)
values ($1, $2, 1)
on conflict (partition) do update set epoch = p.epoch + 1
returning
    ctid as place,
    epoch,
    next_offset,
    anchor,
    emitted,
    results_offset,
    partitions,
    (select o.partitions from waypost.partitions o where o.partitions <> $2 limit 1) as other_count,
    (select row (s.shard, s.shards, s.set_id) from waypost.shard s) as noted,
    producer_id,
    producer_epoch,
    former_producer_ids,
    default_policy,
    default_commands,
    rejected_window,
    foreign_results,
    authority,
    case when skip_offset >= next_offset then skip_offset end as skip_offset
