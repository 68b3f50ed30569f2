update waypost.checkpoints c
set pinned = p.pinned
from unnest($1::text[], $2::bigint[], $3::boolean[]) as p (session_id, number, pinned)
where c.session_id = p.session_id and c.number = p.number
