-- The first command of each partition whose result may not be emitted yet
select p.partition, p.next_offset, p.results_offset, min(o.first_offset) as owed
from waypost.partitions p
left join waypost.outbox o on o.partition = p.partition and o.last_offset > p.emitted
group by p.partition
order by p.partition
