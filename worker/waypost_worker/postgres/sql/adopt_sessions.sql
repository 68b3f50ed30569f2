-- The next sessions in order of their ids, $1 the last one before.
select session_id from waypost.sessions where session_id > $1 order by session_id limit 10000
