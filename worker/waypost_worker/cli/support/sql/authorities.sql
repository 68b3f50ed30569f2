select partition, authority::text from waypost.partitions order by partition
