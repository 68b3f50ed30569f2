-- Where a checkpoint comes from, and its neighbors
select
    c.command_id,
    c.position,
    s.partition,
    (select max(number) from waypost.checkpoints where session_id = $1 and number < $2) as before,
    (select min(number) from waypost.checkpoints where session_id = $1 and number > $2) as after
from waypost.checkpoints c
join waypost.sessions s on s.session_id = c.session_id
where c.session_id = $1 and c.number = $2
