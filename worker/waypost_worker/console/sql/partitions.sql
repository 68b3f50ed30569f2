-- What Postgres knows of each partition, and how many bytes of results wait to be sent
select
    p.partition,
    p.partitions,
    p.next_offset,
    p.epoch,
    p.emitted,
    p.blocked_offset,
    coalesce(o.bytes, 0)::bigint as outbox_bytes
from waypost.partitions p
left join (
    select partition, sum(octet_length(payload)) as bytes from waypost.outbox group by partition
) as o on o.partition = p.partition
order by p.partition
