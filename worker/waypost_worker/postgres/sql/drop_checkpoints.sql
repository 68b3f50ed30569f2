delete from waypost.checkpoints c
using unnest($1::text[], $2::bigint[]) as d (session_id, number)
where c.session_id = d.session_id and c.number = d.number
