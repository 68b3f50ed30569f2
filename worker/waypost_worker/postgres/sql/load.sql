-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch and $4 next offset that the reader knows, $3
-- null for a reader that owns nothing; $5 session ids. One row for each stored session, with its checkpoints and
-- remembered commands as arrays: one round trip, one moment, and a third less to decode than a row for each. A row
-- of nulls if there is none; no row if the partition is elsewhere: what is stored is then not what was asked for.
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
    select
        s.session_id,
        s.counter,
        s.policy,
        s.last_recorded_at,
        s.erased_at,
        e.*,
        r.*
    from unnest($5::text[]) as w (session_id)
    join waypost.sessions s on s.session_id = w.session_id
    cross join lateral (
        select
            array_agg(c.number),
            array_agg(c.name),
            array_agg(c.taken_at),
            array_agg(c.recorded_at),
            array_agg(c.position),
            array_agg(c.command_id),
            array_agg(c.imported_id),
            array_agg(c.pinned)
        from waypost.checkpoints c
        where c.session_id = s.session_id
    ) as e (numbers, names, taken_at, recorded_at, positions, command_ids, imported_ids, pinned)
    cross join lateral (
        select array_agg(c.position), array_agg(c.command_id), array_agg(c.number)
        from waypost.recent_commands c
        where c.session_id = s.session_id
    ) as r (recent_positions, recent_command_ids, recent_numbers)
) as stored on true
