-- $2 the batches whose parts are wanted
select number, name, data, command_id, metadata, recorded_at, false as chosen
from waypost.checkpoints
where session_id = $1 and name = 'part' and metadata ->> 'batch' = any ($2::text[])
order by number
