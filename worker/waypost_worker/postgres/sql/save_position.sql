-- One element for each partition, in ascending order, as in commit_group.sql. $1 partition, $2 where its row is (see
-- store.py) or null, $3 epoch, $4 emitted, $5 results offset, $6 the next offset that the owner knows, or null, $7 and
-- $8 the producer id and epoch that are recorded, for after a failover an epoch may come twice; which outbox entries
-- that confirms: see commit.sql
with owner as materialized (
    update waypost.partitions p
    set emitted = s.emitted,
        results_offset = s.results_offset,
        -- A position behind this owner's fence record: nobody else wrote what lies behind it.
        former_producer_ids = case
            when p.results_offset = s.results_offset then p.former_producer_ids
            else '[]'
        end
    from unnest(
        $1::integer[], $2::text::tid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::integer[]
    ) as s (partition, place, epoch, emitted, results_offset, next_offset, producer_id, producer_epoch)
    where p.ctid = coalesce(s.place, (select q.ctid from waypost.partitions q where q.partition = s.partition))
      and p.partition is not distinct from s.partition -- see commit_group.sql
      and p.epoch = s.epoch
      and p.next_offset = coalesce(s.next_offset, p.next_offset)
      and p.producer_id is not distinct from s.producer_id
      and p.producer_epoch is not distinct from s.producer_epoch
    returning p.partition, p.ctid as place, s.emitted, s.place as former_place
),
confirmed as (
    delete from waypost.outbox o
    using owner, waypost.partitions old
    where old.ctid = coalesce(
            owner.former_place, (select q.ctid from waypost.partitions q where q.partition = owner.partition)
        )
      and o.partition = owner.partition
      and o.last_offset > old.emitted
      and o.last_offset <= owner.emitted
)

select partition, place from owner
