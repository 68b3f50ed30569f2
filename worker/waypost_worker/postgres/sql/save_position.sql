-- $1 partition, $2 epoch, $3 emitted, $4 results offset; which outbox entries that confirms: see commit.sql
with owner as materialized (
    update waypost.partitions
    set emitted = $3, results_offset = $4
    where partition = $1 and epoch = $2
    returning partition
),
confirmed as (
    delete from waypost.outbox o
    using owner, waypost.partitions old
    where old.partition = owner.partition
      and o.partition = owner.partition
      and o.last_offset > old.emitted
      and o.last_offset <= $3
)

select partition from owner
