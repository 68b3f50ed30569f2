-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch, $4 producer id, $5 producer epoch; $6 and
-- $7 those that the owner found: of two owners that a restore gave the same epoch, only one records its own
update waypost.partitions
set producer_id = $4,
    producer_epoch = $5,
    former_producer_ids = case
        when producer_id = $4 then former_producer_ids
        when former_producer_ids is not null and producer_id is not null then former_producer_ids || to_jsonb(producer_id)
    end
where ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
  and partition = $1
  and epoch = $3
  and producer_id is not distinct from $6::bigint
  and producer_epoch is not distinct from $7::integer
returning ctid as place
