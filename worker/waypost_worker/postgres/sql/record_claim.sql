-- One element for each partition, in ascending order, as in commit_group.sql. $1 partition, $2 where its row is (see
-- store.py) or null, $3 epoch, $4 producer id, $5 producer epoch; $6 and $7 those that the owner found: of two owners
-- that a restore gave the same epoch, only one records its own
update waypost.partitions p
set producer_id = c.producer_id,
    producer_epoch = c.producer_epoch,
    former_producer_ids = case
        when p.producer_id = c.producer_id then p.former_producer_ids
        when p.former_producer_ids is not null and p.producer_id is not null
            then p.former_producer_ids || to_jsonb(p.producer_id)
    end
from unnest(
    $1::integer[], $2::text::tid[], $3::bigint[], $4::bigint[], $5::integer[], $6::bigint[], $7::integer[]
) as c (partition, place, epoch, producer_id, producer_epoch, found_id, found_epoch)
where p.ctid = coalesce(c.place, (select q.ctid from waypost.partitions q where q.partition = c.partition))
  and p.partition is not distinct from c.partition -- see commit_group.sql
  and p.epoch = c.epoch
  and p.producer_id is not distinct from c.found_id
  and p.producer_epoch is not distinct from c.found_epoch
returning p.partition, p.ctid as place
