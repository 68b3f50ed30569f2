-- Until the place is noted nobody acquires a partition here for the first time.
lock table waypost.partitions in share row exclusive mode
