insert into waypost_keys.session_keys (session_id, key_id, wrapping_key, wrapped, created_at)
values ($1, $2, $3, $4, $5)
on conflict (session_id) do nothing
