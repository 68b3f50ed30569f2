-- No owner of before commits any more, and none begins while this transaction lasts.
update waypost.partitions set epoch = epoch + 1 returning partition, partitions, next_offset, emitted
