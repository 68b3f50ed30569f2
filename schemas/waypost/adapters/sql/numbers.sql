-- $2 the numbers of the records that are wanted
select number, name, data, command_id, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1 and number = any ($2::bigint[])
order by number
