-- $1 partition
select partitions, next_offset, anchor, emitted, results_offset, default_policy, default_commands
from waypost.partitions
where partition = $1
