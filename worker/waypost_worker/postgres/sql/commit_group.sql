-- Batches of several partitions, as one statement. Each is what commit.sql does for one, and hangs on its partition's
-- row in "owner": if the compare-and-set fails there, nothing of that batch happens, and the others go through.
-- The answer names the partitions that passed. A text of its own, because commit.sql costs a single batch a sixth less.
-- All that commit.sql says about its parts, its columns and their times holds here, too.

-- One element for each partition, in ascending order: two workers that take themselves for the owners of the same
-- partitions then lock their rows in the same order, so neither waits for the other while the other waits for it. The
-- plan keeps that order, for it can only be a loop over these elements (see session.sql). Behind a pooler, where that is
-- not set, Postgres would end such a deadlock after a second, and the batches would be committed one by one.

-- $1 partition, $2 where its row is (see store.py) or null, $3 epoch, $4 and $5 the producer id and epoch that are
-- recorded, $6 expected offset; $7 next offset, $8 anchor, in hex, $9 emitted, $10 results offset, $11 whether an owner
-- commits; null if they stay: $12 default policy, $13 ids of the last commands about the partition, $14 which rejected
-- commands are kept, $15 the partition's authority. $16 the "emitted" that is stored, as the owner knows it; $17 rejected
-- commands of lower offsets are dropped, 0 if there are none to drop, and empty if no partition has any; $18 first and
-- $19 last offset of the outbox entry, $21 where its payload begins in $20 and $22 how long it is
with owner as materialized (
    update waypost.partitions p
    set next_offset = b.next_offset,
        anchor = decode(b.anchor, 'hex'),
        emitted = b.emitted,
        results_offset = b.results_offset,
        default_policy = coalesce(b.default_policy, p.default_policy),
        default_commands = coalesce(b.default_commands, p.default_commands),
        rejected_window = coalesce(b.rejected_window, p.rejected_window),
        former_producer_ids = case when b.by_owner then p.former_producer_ids end,
        authority = coalesce(b.authority, p.authority)
    from unnest(
        $1::text::integer[], $2::text::tid[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
        $6::text::bigint[], $7::text::bigint[], $8::text::text[], $9::text::bigint[], $10::text::bigint[],
        $11::text::boolean[], $12::jsonb[], $13::jsonb[], $14::jsonb[], $15::jsonb[], $16::text::bigint[],
        -- rare:
        $17::text::bigint[],
        -- :rare
        $18::text::bigint[], $19::text::bigint[], $21::text::integer[], $22::text::integer[]
    ) as b (
        partition, place, epoch, producer_id, producer_epoch, expected_offset, next_offset, anchor, emitted,
        results_offset, by_owner, default_policy, default_commands, rejected_window, authority, emitted_before,
        -- rare:
        rejected_below,
        -- :rare
        first_offset, last_offset, payload_start, payload_length
    )
    where p.ctid = coalesce(b.place, (select q.ctid from waypost.partitions q where q.partition = b.partition))
      and p.partition is not distinct from b.partition -- "=" would be looked up by key, among all old versions
      and p.epoch = b.epoch
      and p.next_offset = b.expected_offset
      and p.producer_id is not distinct from b.producer_id
      and p.producer_epoch is not distinct from b.producer_epoch
    returning
        p.partition,
        p.ctid as place,
        b.emitted,
        b.emitted_before,
        -- rare:
        coalesce(b.rejected_below, 0) as rejected_below,
        -- :rare
        b.first_offset,
        b.last_offset,
        b.payload_start,
        b.payload_length
),
-- One row: all other rows below name their partition, and count if it is among these.
passed as materialized (
    select array_agg(partition) as partitions from owner
),
confirmed as (
    delete from waypost.outbox o
    using owner
    where o.partition = owner.partition
      and o.last_offset > owner.emitted_before
      and o.last_offset <= owner.emitted
),
owed as (
    insert into waypost.outbox (partition, first_offset, last_offset, payload)
    select partition, first_offset, last_offset, substring($20::bytea from payload_start for payload_length)
    from owner
    where last_offset > emitted
),
-- rare:
-- $23 partitions, $24 session ids, $25 numbers
dropped as (
    delete from waypost.checkpoints c
    using
        passed,
        unnest($23::text::integer[], $24::text::text[], $25::text::bigint[]) as d (partition, session_id, number)
    where d.partition = any (passed.partitions) and c.session_id = d.session_id and c.number = d.number
    returning c.number
),
-- $40 partitions, $41 session ids, $42 numbers, $43 pins
pinned as (
    update waypost.checkpoints c
    set pinned = p.pinned
    from
        passed,
        unnest($40::text::integer[], $41::text::text[], $42::text::bigint[], $43::text::boolean[])
            as p (partition, session_id, number, pinned)
    where p.partition = any (passed.partitions) and c.session_id = p.session_id and c.number = p.number
),
-- $51 partitions, $52 session ids, $53 the lowest positions still remembered
forgotten as (
    delete from waypost.recent_commands r
    using
        passed,
        unnest($51::text::integer[], $52::text::text[], $53::text::bigint[]) as f (partition, session_id, below)
    where f.partition = any (passed.partitions) and r.session_id = f.session_id and r.position < f.below
),
outdated as (
    delete from waypost.rejected_commands r
    using owner
    where owner.rejected_below > 0 and r.partition = owner.partition and r."offset" < owner.rejected_below
),
-- $72 partitions, $73 sessions, $74 offsets below which their rejected commands go
erased as (
    delete from waypost.rejected_commands r
    using
        owner,
        unnest($72::text::integer[], $73::text::text[], $74::text::bigint[]) as e (partition, session_id, below)
    where $73::text <> '{}' -- known before anything is looked up
      and e.partition = owner.partition
      and r.partition = owner.partition
      and (owner.rejected_below <= 0 or r."offset" >= owner.rejected_below)
      and r."offset" < e.below
      and r.session_id = e.session_id
),
-- $59 partitions, $60 to $70: one array for each column
refused as (
    insert into waypost.rejected_commands (
        partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at, value_bytes,
        headers_bytes
    )
    select t.*
    from
        passed,
        unnest(
            $59::text::integer[], $60::bigint[], $61::text[], $62::text[], $63::text[], $64::text[], $65::bytea[],
            $66::bytea[], $67::bytea[], $68::timestamptz[], $69::bigint[], $70::bigint[]
        ) as t (
            partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at,
            value_bytes, headers_bytes
        )
    where t.partition = any (passed.partitions)
),
-- :rare
-- $26 to $39: one array for each column; $33 is all data in a row, cut by $34 starts and $35 lengths
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
            passed.partitions as passed,
            unnest($26::text::integer[]) as partition,
            unnest($27::text::text[]) as session_id,
            unnest($28::text::bigint[]) as number,
            unnest($29::text::text[]) as imported_id,
            unnest($30::text::text[]) as name,
            unnest($31::text::bigint[]) as taken_at,
            unnest($32::text::bigint[]) as recorded_at,
            substring($33::bytea from unnest($34::text::integer[]) for unnest($35::text::integer[])) as data,
            unnest($36::jsonb[]) as metadata,
            unnest($37::text::boolean[]) as pinned,
            unnest($38::text::text[]) as command_id,
            unnest($39::text::bigint[]) as position
        from passed
        -- rare:
        where (select count(*) from dropped) >= 0 -- always so, and known only when the drops are done
        -- :rare
    ) as p
    where p.partition = any (p.passed)
),
-- $44 partitions, $45 session ids, $46 counters, $47 policies, $48 live checkpoints, $49 recorded_at of the last
-- commands and $50 of the first; $71 when they were erased, or empty
touched as (
    insert into waypost.sessions (
        session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at, erased_at
    )
    select
        t.session_id,
        t.partition,
        t.counter,
        t.policy,
        t.checkpoints,
        to_timestamp(t.begun / 1000000) + t.begun % 1000000 * interval '1 microsecond',
        to_timestamp(t.recorded_at / 1000000) + t.recorded_at % 1000000 * interval '1 microsecond',
        to_timestamp(t.erased_at / 1000000) + t.erased_at % 1000000 * interval '1 microsecond'
    from
        passed,
        unnest(
            $44::text::integer[], $45::text::text[], $46::text::bigint[], $47::jsonb[], $48::text::integer[],
            $49::text::bigint[], $50::text::bigint[], $71::text::bigint[]
        ) as t (partition, session_id, counter, policy, checkpoints, recorded_at, begun, erased_at)
    where t.partition = any (passed.partitions)
    on conflict (session_id) do update
    set counter = excluded.counter,
        policy = excluded.policy,
        checkpoints = excluded.checkpoints,
        last_recorded_at = excluded.last_recorded_at,
        erased_at = excluded.erased_at
),
-- $54 partitions, $55 session ids, $56 positions, $57 command ids, $58 numbers
remembered as (
    insert into waypost.recent_commands (session_id, position, command_id, number)
    select t.session_id, t.position, t.command_id, t.number
    from
        passed,
        unnest(
            $54::text::integer[], $55::text::text[], $56::text::bigint[], $57::text::text[], $58::text::bigint[]
        ) as t (partition, session_id, position, command_id, number)
    where t.partition = any (passed.partitions)
)

select partition, place from owner
