select exists (select from waypost.partitions)
