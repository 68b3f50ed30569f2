select partition, default_policy from waypost.partitions
