-- Sessions from $1 up to $2 that hold checkpoints of the runs $3.
select distinct session_id
from waypost.checkpoints
where session_id >= $1
  and session_id < $2
  and name = 'checkpoint'
  and metadata -> 'facts' ->> 'run_id' = any ($3::text[])
