-- A batch, as one statement: one round trip, and no lock is ever held while the client is waited for, so that
-- a worker that freezes in the middle holds up nobody. Everything hangs on "owner": without it nothing happens.
-- The parts see the database as it was before the statement and run in no promised order; where the order
-- matters, the later part reads the earlier one. No part touches a row that another part touches (see rows.py),
-- but for a checkpoint that is dropped and put again.

-- $1 partition, $2 epoch, $3 expected offset; $4 next offset, $5 anchor, $6 emitted, $7 results offset,
-- $11 default policy, $12 ids of the commands that set it, both null where they stay
with owner as materialized (
    update waypost.partitions
    set next_offset = $4,
        anchor = $5,
        emitted = $6,
        results_offset = $7,
        default_policy = coalesce($11, default_policy),
        default_commands = coalesce($12, default_commands)
    where partition = $1 and epoch = $2 and next_offset = $3
    returning partition
),
-- What ended at or below the old "emitted" is gone already. Starting there keeps clear of dead index entries,
-- of which there are many while a backup or a long query holds old rows.
confirmed as (
    delete from waypost.outbox o
    using owner, waypost.partitions old
    where old.partition = owner.partition
      and o.partition = owner.partition
      and o.last_offset > old.emitted
      and o.last_offset <= $6
),
-- $8 first offset, $9 last offset, $10 payload
owed as (
    insert into waypost.outbox (partition, first_offset, last_offset, payload)
    select partition, $8, $9, $10 from owner where $9 > $6
),
-- $13 session ids, $14 numbers
dropped as (
    delete from waypost.checkpoints c
    using owner, unnest($13::text[], $14::bigint[]) as d (session_id, number)
    where c.session_id = d.session_id and c.number = d.number
    returning c.number
),
-- $15 to $27: one array for each column; $21 is all data in a row, cut by $22 starts and $23 lengths. An array of
-- bytea would be copied element by element on both sides, which costs several times as much.
put as (
    insert into waypost.checkpoints (
        session_id, number, imported_id, name, taken_at, recorded_at, data, metadata, pinned, command_id,
        position
    )
    select
        unnest($15::text[]),
        unnest($16::bigint[]),
        unnest($17::text[]),
        unnest($18::text[]),
        unnest($19::timestamptz[]),
        unnest($20::timestamptz[]),
        substring($21::bytea from unnest($22::integer[]) for unnest($23::integer[])),
        unnest($24::jsonb[]),
        unnest($25::boolean[]),
        unnest($26::text[]),
        unnest($27::bigint[])
    from owner
    where (select count(*) from dropped) >= 0 -- always so, and known only when the drops are done
),
-- $28 session ids, $29 numbers, $30 pins
pinned as (
    update waypost.checkpoints c
    set pinned = p.pinned
    from owner, unnest($28::text[], $29::bigint[], $30::boolean[]) as p (session_id, number, pinned)
    where c.session_id = p.session_id and c.number = p.number
),
-- $31 session ids, $32 counters, $33 policies, $34 live checkpoints, $35 recorded_at of the last commands
touched as (
    insert into waypost.sessions (
        session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at
    )
    select t.session_id, owner.partition, t.counter, t.policy, t.checkpoints, t.recorded_at, t.recorded_at
    from
        owner,
        unnest($31::text[], $32::bigint[], $33::jsonb[], $34::integer[], $35::timestamptz[])
            as t (session_id, counter, policy, checkpoints, recorded_at)
    on conflict (session_id) do update
    set counter = excluded.counter,
        policy = excluded.policy,
        checkpoints = excluded.checkpoints,
        last_recorded_at = excluded.last_recorded_at
),
-- $36 session ids, $37 the lowest positions still remembered
forgotten as (
    delete from waypost.recent_commands r
    using owner, unnest($36::text[], $37::bigint[]) as f (session_id, below)
    where r.session_id = f.session_id and r.position < f.below
),
-- $38 session ids, $39 positions, $40 command ids, $41 numbers
remembered as (
    insert into waypost.recent_commands (session_id, position, command_id, number)
    select t.session_id, t.position, t.command_id, t.number
    from
        owner,
        unnest($38::text[], $39::bigint[], $40::text[], $41::bigint[])
            as t (session_id, position, command_id, number)
),
-- $42 to $50: one array for each column
refused as (
    insert into waypost.rejected_commands (
        partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at
    )
    select owner.partition, t.*
    from
        owner,
        unnest(
            $42::bigint[], $43::text[], $44::text[], $45::text[], $46::text[], $47::bytea[], $48::bytea[],
            $49::bytea[], $50::timestamptz[]
        ) as t
)

select partition from owner
