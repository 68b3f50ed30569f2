select partition, partitions, next_offset, epoch, emitted, results_offset, anchor
from waypost.partitions
order by partition
