delete from waypost.recent_commands r
using unnest($1::text[], $2::bigint[]) as f (session_id, below)
where r.session_id = f.session_id and r.position < f.below
