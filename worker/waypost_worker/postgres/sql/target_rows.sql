-- A worker, unlike a replay, notes its producer id.
select partition, partitions, next_offset, anchor, emitted, results_offset, producer_id is not null as worked,
    foreign_results
from waypost.partitions
order by partition
