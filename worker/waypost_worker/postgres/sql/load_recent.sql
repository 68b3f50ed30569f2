select session_id, position, command_id, number from waypost.recent_commands where session_id = any ($1::text[])
