-- What this database holds of session $1; nulls where it is not known here
select
    s.partition,
    s.counter,
    s.first_recorded_at,
    s.last_recorded_at,
    s.erased_at,
    (select count(*) from waypost.checkpoints c where c.session_id = $1) as checkpoints,
    (select coalesce(sum(octet_length(c.data)), 0) from waypost.checkpoints c where c.session_id = $1) as bytes,
    (select count(*) from waypost.recent_commands r where r.session_id = $1) as command_ids,
    -- Headers are a list, and empty if the session was erased before.
    (
        select count(*)
        from waypost.rejected_commands r
        where r.session_id = $1 and (octet_length(r.value) > 0 or octet_length(r.headers) > 2)
    ) as rejected,
    (
        select count(*)
        from waypost.rejected_commands r
        where r.session_id is null and octet_length(r.value) > 0
    ) as unattributed
from (select $1::text as session_id) as asked
left join waypost.sessions s on s.session_id = asked.session_id
