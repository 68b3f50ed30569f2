"""Taking a partition over: the steps of the protocol, in their order.

The order matters. Postgres is fenced first (1), so no older owner can commit; then the results partition (2), so no
older owner can append after the fence record. Only then is the tail read (3), and the results in it are final.
Everything above them is rebuilt from the outbox (5) or the log (6).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.emitter import emit
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.foreign import without_foreign
from waypost_worker.partition.ownership import Acquired, Limits, OwnershipProof, Position
from waypost_worker.partition.ports import (
    AcquiredState,
    Clock,
    CommandLog,
    Ports,
    RefusedError,
    ResultRecord,
    ResultsLog,
    UnavailableError,
)
from waypost_worker.partition.skips import NO_ORDERS, SkipOrders, find_orders
from waypost_worker.partition.tail import EmittedTail

# How far before the stored position the tail is read, to see whether it is still the same results topic.
LOOK_BACK: Final = 8
# Seconds that a clock may be behind if fences live by it: they are renewed after half a day, and last for one.
SLOWEST_CLOCK: Final = 3600


async def acquire(
    log: CommandLog,
    results: ResultsLog,
    ports: Ports,
    encoder: ResultEncoder,
    limits: Limits,
    *,
    sleep: Callable[[float], Awaitable[None]],
) -> Acquired:
    """Become the owner of the partition, or raise an OwnerError; RefusedError needs a person.

    ``log`` and ``results`` are those of this term, made by ``ports``. ``sleep`` waits for minutes if the producer id
    changed; it may raise to give up.
    """
    store, clock = ports.store, ports.clock
    partitions = await log.partitions()
    proof = OwnershipProof(clock, limits.proof_lifetime)

    # 1. Fence Postgres: from here on no older owner commits.
    with proof.renewed():
        acquired = await store.acquire(partitions)

    # 4, the part that needs no fence in Kafka, comes early: a partition that must be refused is refused
    # before anything is appended. Otherwise each attempt would add a fence record to a results topic that was
    # cut, until it is long enough to look whole.
    log_end = await check_log(log, acquired.next_offset, acquired.anchor)
    results_start = await _check_results(results, acquired, limits.accept_trimmed_results)

    # 2. Fence Kafka: once the record is in, no older owner appends behind it.
    fence = await results.claim()
    proof.check()
    record = encoder.acquired(acquired.epoch, acquired.next_offset, fence)
    asked_at = clock.walltime()
    with proof.fencing():
        tail_end = await results.append([record]) + 1
    clock_ahead = await _check_clock(log, results, clock, asked_at)

    # 3. Read the tail: the results that were emitted after the stored position. They are final.
    tail = await _read_tail(results, acquired, results_start, tail_end, record)
    others = bool((tail.producer_ids | {acquired.producer_id}) - {fence.producer_id, None})
    if others:
        # A new producer id does not fence another one, so wait: an older owner, though fenced in Postgres, may append
        # for as long as it trusts its proof, and its last request may then still be under way. Postgres knows the id of
        # the last owner that it remembers; owners that it forgot in a failover left their ids in the topic.
        await sleep(limits.proof_lifetime)
        await sleep(results.unanswered_append_seconds)
    # Recorded only now: the stored id shows the next owner that nobody still appends under another one.
    with proof.renewed():
        await store.record_claim(acquired.epoch, fence)
    if others:
        # Only an append shows the end for certain: a broker that does not know yet that it is no longer the leader
        # would return an older one, and the results after that would be emitted again.
        proof.check()
        with proof.fencing():
            tail_end = await results.append([record]) + 1
        tail = await _read_tail(results, acquired, results_start, tail_end, record)
    restored = tail.highest >= acquired.next_offset
    if restored:
        await check_answered(log, tail.highest, log_end)

    orders = NO_ORDERS
    if (
        limits.look_ahead
        or restored
        or acquired.skip_offset is not None
        or acquired.authority.key is not None
    ):
        # An operator orders nothing before Postgres knows of it. But a failover may have lost that.
        orders = await find_orders(
            ports.make_log_ahead or ports.make_log, acquired.state(), encoder.partition, acquired.next_offset
        )
    if acquired.skip_offset is not None:
        await check_ordered(log, orders, acquired.skip_offset)

    owed = _owed(acquired, tail.highest)
    if not limits.accept_trimmed_results:  # the operator's word stands for answers that are not there
        _check_emitted(acquired, tail)
        await _check_complete(log, acquired.next_offset, tail.highest, owed)

    # 5. Finish the outbox: emit results that were committed but are not in the topic. Reading a long tail took time, so
    # prove the ownership again first.
    position = Position(
        acquired.epoch,
        acquired.next_offset,
        tail.highest,
        tail_end,
        found=(acquired.emitted, acquired.results_offset),
        suppressed_up_to=tail.highest,
        fence_record=record,
    )
    with proof.renewed():
        await store.save_position(acquired.epoch, *position.to_store(acquired.next_offset))
    reemitted = await _finish_outbox(log, results, owed, encoder, position, proof)
    if reemitted:
        await store.save_position(acquired.epoch, position.emitted, position.results_offset)

    # 6. Consume from P; results up to R are compared instead of emitted.
    await log.seek(acquired.next_offset)
    return Acquired(
        position,
        acquired.anchor,
        partitions,
        acquired.state(),
        acquired.rejected_window,
        tail,
        proof,
        reemitted,
        orders,
        clock_ahead,
    )


async def _check_clock(log: CommandLog, results: ResultsLog, clock: Clock, asked_at: float) -> float | None:
    """Return how far this machine's clock is ahead of the broker's, in seconds; None if that is not known.

    A broker forgets a producer once its last batch is a day old by the batch's own time. If the results topic keeps the
    time that workers tell (as version 0.1 made it), a fence that is written by a slow clock is forgotten too early.

    RefusedError if the clock is known to be that slow: it is behind the last command, which the broker dated.
    """
    answered_at = clock.walltime()
    if results.broker_time is not None:
        return (asked_at + answered_at) / 2 - results.broker_time
    start, end = await log.bounds()
    records = await log.read(max(start, end - 1), end) if end > start else []
    if records and (behind := records[-1].timestamp / 1000 - answered_at) > SLOWEST_CLOCK:
        raise RefusedError(
            f"this machine's clock is {behind / 3600:.1f} h behind the broker's, and the results topic keeps the time "
            "that workers send (message.timestamp.type=CreateTime): the broker would forget this worker's fence that "
            "much too early. Nothing was applied. Set the clock, and run 'waypost topics update'"
        )
    return None


async def check_log(log: CommandLog, position: int, anchor: bytes | None) -> int:
    """Raise RefusedError unless the log reaches to ``position`` and has the record that was applied before it. Return
    the end of the log.
    """
    start, end = await log.bounds()
    if position > end:
        raise RefusedError(
            f"Postgres has applied commands up to offset {position - 1}, but the command topic ends at "
            f"{end}: the topic was recreated or truncated, or this is another cluster. Nothing was changed. Point the "
            "worker at the right cluster, or rebuild with 'waypost replay' into an empty database"
        )
    if position < start:
        raise RefusedError(
            f"the command topic starts at offset {start}, but Postgres has applied only up to "
            f"{position - 1}: retention removed {start - position} offsets before they were applied. Nothing "
            "was changed. Restore a newer backup or snapshot of Postgres and run 'waypost replay', then raise "
            "the topic's retention"
        )
    if anchor is None or position == start:
        return end  # nothing applied yet, or the anchored record was removed by retention since
    records = await log.read(position - 1, position)
    if not records or anchor_of(records[-1]) != anchor:
        raise RefusedError(
            f"the command record at offset {position - 1} is not the one that Postgres applied: the topic "
            "was recreated, or this is another cluster. Nothing was changed. Point the worker at the right "
            "cluster, or rebuild with 'waypost replay' into an empty database"
        )
    return end


async def check_ordered(log: CommandLog, orders: SkipOrders, offset: int) -> None:
    """Raise RefusedError unless the log skips the command for which an operator requested it."""
    records = await log.read(offset, offset + 1)
    if records and orders.of(records[0]) is None:
        raise RefusedError(
            f"an operator requested to skip the command at offset {offset} and the command topic has no "
            "valid order for that yet. Nothing was changed, and the command is not applied; finish with "
            "'waypost commands "
            "skip'"
        )


async def check_answered(log: CommandLog, highest: int, log_end: int) -> None:
    """Raise RefusedError unless the log has the last command that the results topic answers.

    Without an anchor that reaches this far, this is the only sign of a log that was replaced by another one while
    Postgres lost its state: offsets of the new log may belong to records that no reader sees.
    """
    if highest >= log_end:
        log_end = (await log.bounds())[1]  # it may have grown since
    if highest < log_end and await log.read(highest, highest + 1):
        return
    raise RefusedError(
        f"the results topic answers commands up to offset {highest}, but the command topic, which ends at "
        f"{log_end}, has none there: it was recreated, truncated or compacted, or this is another cluster. Nothing was "
        "changed. Point Waypost at the right cluster, or use another topic prefix"
    )


async def _check_results(results: ResultsLog, acquired: AcquiredState, accept_trimmed_results: bool) -> int:
    """The offset from which results can be read."""
    start, end = await results.bounds()
    if acquired.results_offset > end:
        raise RefusedError(
            f"the results topic ends at {end}, before the stored position {acquired.results_offset}: it was "
            "recreated or truncated. Nothing was changed; use another topic prefix, or rebuild with "
            "'waypost replay'"
        )
    if acquired.results_offset < start and not accept_trimmed_results:
        raise RefusedError(
            f"retention removed results {acquired.results_offset} to {start - 1} before this worker could "
            "check whether they answer all applied commands. Nothing was changed. To continue, and accept "
            "that some results of that time may be missing or emitted twice, start with "
            "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once"
        )
    return start


async def _read_tail(
    results: ResultsLog, acquired: AcquiredState, start: int, end: int, fence: ResultRecord
) -> EmittedTail:
    """Return the results up to ``end``, where ``fence`` was appended. Raise UnavailableError if another record is
    there.
    """
    tail = EmittedTail(acquired.emitted, acquired.results_offset, acquired.owners, start)
    if end > acquired.results_offset:
        # Records that an operator accepted count neither in R nor in the order of results.
        found = without_foreign(results, acquired.foreign_results)
        async for records in found.read(max(start, acquired.results_offset - LOOK_BACK), end):
            tail.take(records, acquired.next_offset, [found.producer_of(record) for record in records])
    if tail.last_value != fence.value:
        # A coordinator that lost its last write assigns an epoch twice. The first append of the second claimant then
        # has the same sequence number as the first one's, so the broker takes it for the same batch, writes nothing,
        # and answers with the offset of that one. Results that the first claimant has appended since would never be
        # read. If the topic was truncated instead, the next attempt reports it.
        raise UnavailableError(
            f"Kafka answered that the fence record is at offset {end - 1} of the results, but it does not: "
            "this producer epoch was also assigned to another worker. Nothing was written; claiming a new one"
        )
    tail.check_position()
    return tail


def _owed(acquired: AcquiredState, highest: int) -> list[list[outbox.Item]]:
    """Return the outbox entries that are not emitted yet if commands up to ``highest`` are answered, none of them
    empty.
    """
    owed = []
    for entry in acquired.outbox:
        if entry.last_offset <= highest:
            continue
        owed.append([item for item in outbox.unpack(entry.payload) if item[0] > highest])
    return [items for items in owed if items]


def _check_emitted(acquired: AcquiredState, tail: EmittedTail) -> None:
    """Raise RefusedError if the topic answers a later command than one whose result is in the outbox, but not that one.

    An owner emits in order, so the result was there. A leader that lacked it took its place, and the owner appended
    the next results before it noticed that they landed too early.
    """
    for entry in acquired.outbox:
        if acquired.emitted < entry.last_offset and entry.first_offset < tail.highest:
            for item in outbox.unpack(entry.payload):
                if tail.lacks(item[0]):
                    raise RefusedError(
                        f"the results topic answers commands up to offset {tail.highest}, but no longer the one at "
                        f"offset {item[0]}: the topic was truncated. Nothing was changed; use another topic prefix, or "
                        "rebuild with 'waypost replay' into an empty database"
                    )


async def _check_complete(
    log: CommandLog, next_offset: int, highest: int, owed: Sequence[Sequence[outbox.Item]]
) -> None:
    """Raise RefusedError unless each applied command is answered in the topic or pending in the outbox.

    Results that a replay after a loss of Postgres found in the topic were only compared, and are not in the outbox. If
    the topic is truncated after that, above the stored position, nothing else shows that these results are gone.
    """
    covered = highest
    for first, last in [*((items[0][0], items[-1][0]) for items in owed), (next_offset, next_offset)]:
        if first > covered + 1:
            # Markers and aborted records need no answer; records that retention removed can't be checked.
            start, _ = await log.bounds()
            found = await log.read(max(start, covered + 1), first) if first > start else []
            if found:
                raise RefusedError(
                    f"commands {found[0].offset} to {found[-1].offset} were applied, but their results are neither "
                    "in the results topic nor kept in Postgres: the topic was truncated. Nothing was changed; use "
                    "another topic prefix, or rebuild with 'waypost replay' into an empty database"
                )
        covered = max(covered, last)


async def _finish_outbox(
    log: CommandLog,
    results: ResultsLog,
    owed: Sequence[Sequence[outbox.Item]],
    encoder: ResultEncoder,
    position: Position,
    proof: OwnershipProof,
) -> int:
    reemitted = 0
    if needed := [offset for items in owed for offset in outbox.needs_log(items)]:
        start, _ = await log.bounds()
        if needed[0] < start:
            raise outbox.missing(needed[0])
    for items in owed:
        needed = outbox.needs_log(items)
        records: dict[int, KafkaRecord] = {}
        if needed:
            wanted = set(needed)
            for record in await log.read(needed[0], needed[-1] + 1):
                if record.offset in wanted:
                    records[record.offset] = record
        made = outbox.results(items, records, encoder)
        await emit(results, made, position, proof)
        reemitted += len(made)
    return reemitted
