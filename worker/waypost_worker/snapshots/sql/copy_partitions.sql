select
    partition, partitions, next_offset, epoch, emitted, results_offset, anchor, producer_id, producer_epoch,
    default_policy, default_commands, rejected_window, foreign_results, former_producer_ids, authority, blocked_offset,
    skip_offset
from waypost.partitions
where partition = $1
