select * from waypost.checkpoints
where session_id = $1 and ($2::text is null or name = $2)
order by number desc
limit 1
