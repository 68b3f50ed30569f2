update waypost.partitions set partitions = $1
