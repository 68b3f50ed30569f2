-- The first tombstone stays as it is. $2 when the key was deleted
insert into waypost_keys.session_keys as kept (session_id, key_id, wrapping_key, wrapped, created_at, erased_at)
values ($1, '', '', ''::bytea, $2, $2)
on conflict (session_id) do update
set wrapping_key = '', wrapped = ''::bytea, erased_at = coalesce(kept.erased_at, excluded.erased_at)
returning session_id, key_id, wrapping_key, wrapped, created_at, erased_at
