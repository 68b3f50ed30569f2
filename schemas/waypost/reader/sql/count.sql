select count(*) from waypost.checkpoints where session_id = $1
