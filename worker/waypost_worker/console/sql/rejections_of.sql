-- How many refused commands of a session are kept
select count(*) as count from waypost.rejected_commands where session_id = $1
