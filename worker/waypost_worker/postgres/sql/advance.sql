-- The compare-and-set that serialises owners; with it the outbox, so that it costs one round trip.
-- $1 partition, $2 epoch, $3 expected offset, $4 next offset, $5 anchor, $6 emitted, $7 results offset,
-- $8 first offset, $9 last offset, $10 payload
with owner as (
    update waypost.partitions
    set next_offset = $4, anchor = $5, emitted = $6, results_offset = $7
    where partition = $1 and epoch = $2 and next_offset = $3
    returning partition
), confirmed as (
    delete from waypost.outbox o using owner where o.partition = owner.partition and o.last_offset <= $6
)
insert into waypost.outbox (partition, first_offset, last_offset, payload)
select owner.partition, $8, $9, $10 from owner
returning partition
