select * from waypost.checkpoints where session_id = $1 and imported_id = $2 order by number desc limit 1
