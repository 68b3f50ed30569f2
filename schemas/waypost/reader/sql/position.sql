select next_offset from waypost.partitions where partition = $1
