-- $1 partition
select coalesce(skip_offset >= next_offset, false) from waypost.partitions where partition = $1
