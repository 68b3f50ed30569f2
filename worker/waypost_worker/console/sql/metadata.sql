-- Metadata of the checkpoints $2 of a session
select number, metadata from waypost.checkpoints where session_id = $1 and number = any($2::bigint[])
