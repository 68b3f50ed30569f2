do $$
begin
    execute format('comment on schema %I is %L', current_setting('replay.schema'), current_setting('replay.mark'));
end
$$
