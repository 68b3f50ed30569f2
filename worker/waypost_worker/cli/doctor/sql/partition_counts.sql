select distinct partitions from waypost.partitions order by partitions
