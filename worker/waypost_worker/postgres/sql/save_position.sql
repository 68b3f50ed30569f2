-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch, $4 emitted, $5 results offset; which outbox
-- entries that confirms: see commit.sql
with owner as materialized (
    update waypost.partitions
    set emitted = $4, results_offset = $5
    where ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
      and partition = $1
      and epoch = $3
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
