-- $1 partitions, $2 offsets
select r.partition, r."offset", r.code, r.message
from waypost.rejected_commands r
join unnest($1::integer[], $2::bigint[]) as p (partition, "offset")
    on p.partition = r.partition and p."offset" = r."offset"
