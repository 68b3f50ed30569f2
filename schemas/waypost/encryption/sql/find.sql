select session_id, key_id, wrapping_key, wrapped, created_at, erased_at
from waypost_keys.session_keys
where session_id = any ($1::text[])
