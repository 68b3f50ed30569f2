-- Where the newest checkpoint is that contains the metadata $2.
select number
from waypost.checkpoints
where session_id = $1 and name = 'checkpoint' and metadata @> $2::jsonb
order by number desc
limit 1
