select session_id, counter, policy from waypost.sessions where session_id = any ($1::text[])
