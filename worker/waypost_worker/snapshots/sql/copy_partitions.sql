select * from waypost.partitions where partition = $1
