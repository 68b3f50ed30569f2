select partition, partitions, next_offset, emitted, anchor from waypost.partitions order by partition
