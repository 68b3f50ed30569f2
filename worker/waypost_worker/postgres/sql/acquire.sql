-- $1 partitions in ascending order, $2 the partition count that each of their owners sees, $3 whether to leave out rows
-- that another transaction holds: a group must not wait for one of them while it holds the others. Raises the epochs:
-- from here on no older owner commits. "least_count" and "most_count" are of all partitions: one that was added has no
-- row yet that could tell. "noted" is the database's place among several.
with free as materialized (
    select partition
    from waypost.partitions
    where $3 and partition = any ($1::integer[])
    order by partition
    for no key update skip locked
)

insert into waypost.partitions as p (partition, partitions, epoch)
select a.partition, a.partitions, 1
from unnest($1::integer[], $2::integer[]) as a (partition, partitions)
where not $3
   or a.partition in (select f.partition from free f)
   or not exists (select from waypost.partitions q where q.partition = a.partition)
order by a.partition
on conflict (partition) do update set epoch = p.epoch + 1
returning
    partition,
    ctid as place,
    epoch,
    next_offset,
    anchor,
    emitted,
    results_offset,
    partitions,
    (select min(o.partitions) from waypost.partitions o) as least_count,
    (select max(o.partitions) from waypost.partitions o) as most_count,
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
