-- $2 the batches whose parts are wanted
select number
from waypost.checkpoints
where session_id = $1 and name = 'part' and metadata ->> 'batch' = any ($2::text[])
order by number
