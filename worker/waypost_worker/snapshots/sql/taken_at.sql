select now() as taken_at, current_setting('server_version_num')::integer as version
