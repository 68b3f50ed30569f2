select partition, next_offset from waypost.partitions
