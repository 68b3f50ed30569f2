-- Where this database stands in a list of several, and the partition count of its topics, null before any is owned
select s.shard, s.shards, s.set_id, (select p.partitions from waypost.partitions p limit 1) as partitions
from (select) as one
left join waypost.shard s on true
