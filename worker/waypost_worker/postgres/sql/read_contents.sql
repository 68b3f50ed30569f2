select c.session_id, c.number, c.data, c.metadata
from waypost.checkpoints c
join unnest($1::text[], $2::bigint[]) as w (session_id, number)
    on c.session_id = w.session_id and c.number = w.number
