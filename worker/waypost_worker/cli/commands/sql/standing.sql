-- $1 partition
select
    next_offset, blocked_offset, skip_offset, default_policy::text, default_commands::text, authority::text
from waypost.partitions
where partition = $1
