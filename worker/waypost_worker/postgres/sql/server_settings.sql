-- Those of these settings that the server has, for this session.
select name, setting from pg_settings where name = any($1)
