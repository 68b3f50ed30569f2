-- Which commands of partition $1 at the offsets $2 were rejected.
select "offset", code, message
from waypost.rejected_commands
where partition = $1 and "offset" = any ($2::bigint[])
