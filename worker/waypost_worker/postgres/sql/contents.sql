-- $1 to $4, and what rows there are: see load.sql. $5 session ids, $6 numbers
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
    select c.session_id, c.number, c.data, c.metadata
    from unnest($5::text[], $6::bigint[]) as w (session_id, number)
    join waypost.checkpoints c on c.session_id = w.session_id and c.number = w.number
) as stored on true
