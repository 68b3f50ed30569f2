-- $1 partition, $2 epoch, $3 producer id, $4 producer epoch
update waypost.partitions
set producer_id = $3, producer_epoch = $4
where partition = $1 and epoch = $2
returning partition
