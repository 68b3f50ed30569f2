-- the first and the last checkpoint, which may be the same one
(select * from waypost.checkpoints where session_id = $1 order by number limit 1)
union all
(select * from waypost.checkpoints where session_id = $1 order by number desc limit 1)
