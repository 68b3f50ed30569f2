-- By what the record $2 is known.
select metadata ->> 'tag'
from waypost.checkpoints
where session_id = $1 and number = $2
