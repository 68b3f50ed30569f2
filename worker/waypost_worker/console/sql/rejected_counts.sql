-- Refused commands that are kept from the time $1 on, by code
select code, count(*) as count
from waypost.rejected_commands
where recorded_at >= $1
group by code
order by count(*) desc, code
