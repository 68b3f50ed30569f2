select * from waypost.checkpoints where session_id = $1 and number = $2
