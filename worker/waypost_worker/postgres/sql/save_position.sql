-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch, $4 emitted, $5 results offset, $6 the next
-- offset that the owner knows, or null, $7 and $8 the producer id and epoch that are recorded, for after a failover an
-- epoch may come twice; which outbox entries that confirms: see commit.sql
with owner as materialized (
    update waypost.partitions
    set emitted = $4,
        results_offset = $5,
        -- A position behind this owner's fence record: nobody else wrote what lies behind it.
        former_producer_ids = case when results_offset = $5 then former_producer_ids else '[]' end
    where ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
      and partition = $1
      and epoch = $3
      and next_offset = coalesce($6, next_offset)
      and producer_id is not distinct from $7::bigint
      and producer_epoch is not distinct from $8::integer
    returning partition, ctid as place
),
confirmed as (
    delete from waypost.outbox o
    using owner, waypost.partitions old
    where old.ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
      and o.partition = owner.partition
      and o.last_offset > old.emitted
      and o.last_offset <= $4
)

select place from owner
