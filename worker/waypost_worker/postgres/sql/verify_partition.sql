-- $1 partition
select partitions, next_offset, anchor, emitted, results_offset, default_policy, default_commands, rejected_window,
    foreign_results, authority
from waypost.partitions
where partition = $1
