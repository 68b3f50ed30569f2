-- $1 partition, $2 partition count. Raises the epoch: from here on no older owner commits.
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
    producer_id,
    default_policy,
    default_commands
