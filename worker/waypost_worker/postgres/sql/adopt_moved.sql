-- $1 session ids, $2 where each belongs from now on.
update waypost.sessions s
set partition = m.partition
from unnest($1::text[], $2::integer[]) m (session_id, partition)
where s.session_id = m.session_id and s.partition <> m.partition
