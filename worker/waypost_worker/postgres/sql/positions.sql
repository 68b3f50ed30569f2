select partition, partitions, next_offset, emitted from waypost.partitions order by partition
