-- $1 the public key, in base64
update waypost.partitions
set authority = jsonb_build_object('key', $1::text, 'signed_at', authority -> 'signed_at')
