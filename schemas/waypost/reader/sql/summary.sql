select name, count(*) as count, min(number) as first, min(taken_at) as earliest, max(taken_at) as latest
from waypost.checkpoints
where session_id = $1
group by name
order by min(number)
