-- $2 and $3 the key as it was read, $4 and $5 as it is wrapped now. A tombstone has no wrapped bytes, so it stays.
update waypost_keys.session_keys
set wrapping_key = $4, wrapped = $5
where session_id = $1 and key_id = $2 and wrapped = $3 and erased_at is null
returning true
