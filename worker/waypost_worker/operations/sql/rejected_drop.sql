-- $1 partitions, $2 offsets
delete from waypost.rejected_commands r
using unnest($1::integer[], $2::bigint[]) as p (partition, "offset")
where p.partition = r.partition and p."offset" = r."offset"
