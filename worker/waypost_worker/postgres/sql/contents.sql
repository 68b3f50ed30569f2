-- $1 session ids, $2 numbers
select c.session_id, c.number, c.data, c.metadata
from unnest($1::text[], $2::bigint[]) as w (session_id, number)
join waypost.checkpoints c on c.session_id = w.session_id and c.number = w.number
