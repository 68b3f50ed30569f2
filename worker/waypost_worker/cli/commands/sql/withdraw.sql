-- $1 partition, $2 offset
update waypost.partitions set skip_offset = null where partition = $1 and skip_offset = $2
