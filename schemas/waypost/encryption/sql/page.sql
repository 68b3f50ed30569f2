-- $1 after this session, $2 at most so many
select session_id, key_id, wrapping_key, wrapped, created_at, erased_at
from waypost_keys.session_keys
where session_id > $1
order by session_id
limit $2
