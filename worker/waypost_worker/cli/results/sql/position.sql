-- $1 partition
select results_offset, producer_id, former_producer_ids, foreign_results from waypost.partitions where partition = $1
