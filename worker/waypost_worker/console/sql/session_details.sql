-- For sessions $1: the latest checkpoint, whether one has the name $2 and contains the metadata $3 (each counts unless it
-- is null), and how many refused commands are kept
select
    s.session_id,
    latest.number as latest_number,
    latest.name as latest_name,
    ($2::text is null and $3::jsonb is null) or exists (
        select
        from waypost.checkpoints c
        where c.session_id = s.session_id
          and ($2::text is null or c.name = $2)
          and ($3::jsonb is null or c.metadata @> $3)
    ) as matches,
    coalesce(r.count, 0) as rejected
from unnest($1::text[]) as asked (session_id)
join waypost.sessions s on s.session_id = asked.session_id
left join lateral (
    select number, name
    from waypost.checkpoints c
    where c.session_id = s.session_id
    order by number desc
    limit 1
) as latest on true
left join (
    select session_id, count(*) as count
    from waypost.rejected_commands
    where session_id = any($1::text[])
    group by session_id
) as r on r.session_id = s.session_id
