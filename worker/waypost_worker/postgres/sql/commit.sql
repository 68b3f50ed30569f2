-- A batch, as one statement: one round trip, and no lock is ever held while the client is waited for, so that
-- a worker that freezes in the middle holds up nobody. Everything hangs on "owner": without it nothing happens.
-- The parts see the database as it was before the statement and run in no promised order; where the order
-- matters, the later part reads the earlier one. No part touches a row that another part touches (see rows.py),
-- but for a checkpoint that is dropped and put again.

-- Columns come as array literals (rows.py): asyncpg looks at each element of an array to see whether it is a list, which
-- costs more than all else about it. Times in them are microseconds since 1970, made timestamps in two steps, for one
-- that multiplied them all would be inexact far from there: it counts in double precision.

-- The lines between "rare:" and ":rare" have nothing to do for most batches, and cost a quarter of a small commit even
-- so. statements.py makes a short form without them, which is used if every parameter that only they read is empty.

-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch, $4 expected offset, $62 and $63 the producer id
-- and epoch that are recorded, for after a restore an epoch may come twice; $5 next offset,
-- $6 anchor, $7 emitted, $8 results offset, $12 default policy, $13 ids of the last commands about the partition, $56 which
-- rejected commands are kept, $58 the partition's authority; these are null if they stay. $57 whether an owner commits
with owner as materialized (
    update waypost.partitions
    set next_offset = $5,
        anchor = $6,
        emitted = $7,
        results_offset = $8,
        default_policy = coalesce($12, default_policy),
        default_commands = coalesce($13, default_commands),
        rejected_window = coalesce($56, rejected_window),
        former_producer_ids = case when $57 then former_producer_ids end,
        authority = coalesce($58, authority)
    where ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
      and partition = $1
      and epoch = $3
      and next_offset = $4
      and producer_id is not distinct from $62::bigint
      and producer_epoch is not distinct from $63::integer
    returning partition, ctid as place
),
-- What ended at or below the old "emitted" is gone already. Starting there keeps clear of dead index entries,
-- of which there are many while a backup or a long query holds old rows.
confirmed as (
    delete from waypost.outbox o
    using owner, waypost.partitions old
    where old.ctid = coalesce($2::tid, (select ctid from waypost.partitions where partition = $1))
      and o.partition = owner.partition
      and o.last_offset > old.emitted
      and o.last_offset <= $7
),
-- $9 first offset, $10 last offset, $11 payload
owed as (
    insert into waypost.outbox (partition, first_offset, last_offset, payload)
    select partition, $9, $10, $11 from owner where $10 > $7
),
-- rare:
-- $14 session ids, $15 numbers
dropped as (
    delete from waypost.checkpoints c
    using owner, unnest($14::text::text[], $15::text::bigint[]) as d (session_id, number)
    where c.session_id = d.session_id and c.number = d.number
    returning c.number
),
-- $29 session ids, $30 numbers, $31 pins
pinned as (
    update waypost.checkpoints c
    set pinned = p.pinned
    from owner, unnest($29::text::text[], $30::text::bigint[], $31::text::boolean[]) as p (session_id, number, pinned)
    where c.session_id = p.session_id and c.number = p.number
),
-- $37 session ids, $38 the lowest positions still remembered
forgotten as (
    delete from waypost.recent_commands r
    using owner, unnest($37::text::text[], $38::text::bigint[]) as f (session_id, below)
    where r.session_id = f.session_id and r.position < f.below
),
-- $55: rejected commands of lower offsets are dropped; 0 if there are none to drop, which saves the look
outdated as (
    delete from waypost.rejected_commands r
    using owner
    where $55::bigint > 0 and r.partition = owner.partition and r."offset" < $55
),
-- $60 sessions, $61 offsets below which their rejected commands go: the sessions are erased
erased as (
    delete from waypost.rejected_commands r
    using owner, unnest($60::text::text[], $61::text::bigint[]) as e (session_id, below)
    where $60::text <> '{}' -- known before anything is looked up
      and r.partition = owner.partition
      and ($55::bigint <= 0 or r."offset" >= $55) -- no part deletes what another part deletes
      and r."offset" < e.below
      and r.session_id = e.session_id
),
-- $43 to $51, $53 and $54: one array for each column
refused as (
    insert into waypost.rejected_commands (
        partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at, value_bytes,
        headers_bytes
    )
    select owner.partition, t.*
    from
        owner,
        unnest(
            $43::bigint[], $44::text[], $45::text[], $46::text[], $47::text[], $48::bytea[], $49::bytea[],
            $50::bytea[], $51::timestamptz[], $53::bigint[], $54::bigint[]
        ) as t
),
-- :rare
-- $16 to $28: one array for each column; $22 is all data in a row, cut by $23 starts and $24 lengths. An array of
-- bytea would be copied element by element on both sides, which costs several times as much. A column that has
-- nothing to say comes empty ($18, $25, $26): unnest then gives nulls beside the others.
put as (
    insert into waypost.checkpoints (
        session_id, number, imported_id, name, taken_at, recorded_at, data, metadata, pinned, command_id,
        position
    )
    select
        p.session_id,
        p.number,
        p.imported_id,
        p.name,
        to_timestamp(p.taken_at / 1000000) + p.taken_at % 1000000 * interval '1 microsecond',
        to_timestamp(p.recorded_at / 1000000) + p.recorded_at % 1000000 * interval '1 microsecond',
        p.data,
        coalesce(p.metadata, '{}'),
        coalesce(p.pinned, false),
        p.command_id,
        p.position
    from (
        select
            unnest($16::text::text[]) as session_id,
            unnest($17::text::bigint[]) as number,
            unnest($18::text::text[]) as imported_id,
            unnest($19::text::text[]) as name,
            unnest($20::text::bigint[]) as taken_at,
            unnest($21::text::bigint[]) as recorded_at,
            substring($22::bytea from unnest($23::text::integer[]) for unnest($24::text::integer[])) as data,
            unnest($25::jsonb[]) as metadata,
            unnest($26::text::boolean[]) as pinned,
            unnest($27::text::text[]) as command_id,
            unnest($28::text::bigint[]) as position
        from owner
        -- rare:
        where (select count(*) from dropped) >= 0 -- always so, and known only when the drops are done
        -- :rare
    ) as p
),
-- $32 session ids, $33 counters, $34 policies, $35 live checkpoints, $36 recorded_at of the last commands and $52
-- of the first: where a batch is cut must not show in what is stored; $59 when they were erased, or empty
touched as (
    insert into waypost.sessions (
        session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at, erased_at
    )
    select
        t.session_id,
        owner.partition,
        t.counter,
        t.policy,
        t.checkpoints,
        to_timestamp(t.begun / 1000000) + t.begun % 1000000 * interval '1 microsecond',
        to_timestamp(t.recorded_at / 1000000) + t.recorded_at % 1000000 * interval '1 microsecond',
        to_timestamp(t.erased_at / 1000000) + t.erased_at % 1000000 * interval '1 microsecond'
    from
        owner,
        unnest(
            $32::text::text[], $33::text::bigint[], $34::jsonb[], $35::text::integer[], $36::text::bigint[],
            $52::text::bigint[], $59::text::bigint[]
        ) as t (session_id, counter, policy, checkpoints, recorded_at, begun, erased_at)
    on conflict (session_id) do update
    set counter = excluded.counter,
        policy = excluded.policy,
        checkpoints = excluded.checkpoints,
        last_recorded_at = excluded.last_recorded_at,
        erased_at = excluded.erased_at
),
-- $39 session ids, $40 positions, $41 command ids, $42 numbers
remembered as (
    insert into waypost.recent_commands (session_id, position, command_id, number)
    select t.session_id, t.position, t.command_id, t.number
    from
        owner,
        unnest($39::text::text[], $40::text::bigint[], $41::text::text[], $42::text::bigint[])
            as t (session_id, position, command_id, number)
)

select place from owner
