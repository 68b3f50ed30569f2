insert into waypost.recent_commands (session_id, position, command_id, number)
select * from unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
