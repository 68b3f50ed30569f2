select distinct default_policy::text from waypost.partitions
