-- $1 to $4, and what rows there are: see load.sql. $5 session ids
select stored.*
from (
    select
    where $3::bigint is null
       or exists (
           select
           from waypost.partitions p
           where p.ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
             and p.partition = $1
             and p.epoch = $3
             and p.next_offset = $4
       )
) as held
left join lateral (
    select s.session_id, s.checkpoints
    from unnest($5::text[]) as w (session_id)
    join waypost.sessions s on s.session_id = w.session_id
) as stored on true
