-- $1 partition, $2 offset. Raises the epoch: an owner that is about to apply the command can't commit any more, and the
-- next one finds the request.
update waypost.partitions
set skip_offset = $2, epoch = epoch + 1
where partition = $1 and next_offset <= $2 and blocked_offset = $2
returning epoch
