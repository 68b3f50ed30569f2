-- $1 partition, $2 offset. Of no meaning once the partition is past it.
update waypost.partitions
set blocked_offset = $2
where partition = $1 and next_offset <= $2 and blocked_offset is distinct from $2
