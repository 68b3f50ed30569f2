"""Appends of several partitions in one Produce request: who goes with whom, and whose answer is whose."""

import asyncio
import struct
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CorrelationIdError,
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidTimestampError,
    KafkaConnectionError,
    KafkaStorageError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    RecordListTooLargeError,
    RequestTimedOutError,
    StaleMetadata,
    TopicAuthorizationFailedError,
    UnknownProducerId,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.record.default_records import DefaultRecordBatch
from tests.unit.scripted_leaders import DATED, NOTHING, OFFSETS, TOPIC, Script, ScriptedLeaders

from waypost_worker.kafka import fenced_producer, produce
from waypost_worker.kafka.client import Lane
from waypost_worker.kafka.fenced_producer import FencedProducer
from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    OwnerError,
    RefusedError,
    ResultRecord,
    UnavailableError,
)

FENCED = (InvalidProducerEpoch.errno, 90)
TIMED_OUT = RequestTimedOutError.errno


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fenced_producer, "_BACKOFF", 0)


@pytest.fixture
async def cluster() -> ScriptedLeaders:
    return ScriptedLeaders()


def owner(cluster: ScriptedLeaders, partition: int) -> FencedProducer:
    return FencedProducer(cluster, TOPIC, partition, Fence(7000 + partition, partition))


def owners(cluster: ScriptedLeaders, count: int) -> list[FencedProducer]:
    return [owner(cluster, partition) for partition in range(count)]


def records(count: int = 1, size: int = 10) -> list[ResultRecord]:
    return [ResultRecord(b"key", bytes(size), []) for _ in range(count)]


async def appended(producers: Iterable[FencedProducer]) -> list[int | BaseException]:
    return await asyncio.gather(*(one.append(records()) for one in producers), return_exceptions=True)


async def begun(cluster: ScriptedLeaders, producer: FencedProducer, count: int = 1) -> "asyncio.Task[int]":
    """An append whose request is on its way."""
    cluster.under_way.clear()
    task = asyncio.create_task(producer.append(records(count)))
    await cluster.under_way.wait()
    return task


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Who goes with whom.


async def test_appends_of_several_partitions_go_in_one_request_for_each_broker(
    cluster: ScriptedLeaders,
) -> None:
    cluster.leaders = {0: 1, 1: 2, 2: 1, 3: 2, 4: 1}
    assert await appended(owners(cluster, 5)) == [partition * OFFSETS for partition in range(5)]
    assert sorted((one.node, sorted(one.batches)) for one in cluster.sent) == [(1, [0, 2, 4]), (2, [1, 3])]
    assert {one.lane for one in cluster.sent} == {Lane.PRODUCE}


async def test_every_batch_keeps_its_own_producer_and_sequence(cluster: ScriptedLeaders) -> None:
    producers = owners(cluster, 3)
    await appended(producers)
    await producers[1].append(records(5))
    await appended(producers)
    sequences: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for sent in cluster.sent:
        for partition, data in sent.batches.items():
            batch = DefaultRecordBatch(data)
            assert (batch.producer_id, batch.producer_epoch) == (7000 + partition, partition)
            assert not batch.is_transactional
            assert batch.validate_crc()
            sequences[partition].append(batch.base_sequence)
    assert sequences == {0: [0, 1], 1: [0, 1, 6], 2: [0, 1]}


async def test_what_comes_while_a_request_is_under_way_forms_the_next(cluster: ScriptedLeaders) -> None:
    producers = owners(cluster, 4)
    cluster.answering.clear()
    first = await begun(cluster, producers[0])
    others = asyncio.create_task(appended(producers[1:]))
    await turns()
    assert [sorted(one.batches) for one in cluster.sent] == [[0]]
    cluster.answering.set()
    assert await first == 0
    assert await others == [OFFSETS, 2 * OFFSETS, 3 * OFFSETS]
    assert [sorted(one.batches) for one in cluster.sent] == [[0], [1, 2, 3]]


async def test_a_request_is_at_most_as_large_as_one_with_the_largest_batch(cluster: ScriptedLeaders) -> None:
    large = records(2, size=3_000_000)
    await asyncio.gather(*(one.append(large) for one in owners(cluster, 5)))
    sizes = [sum(map(len, sent.batches.values())) for sent in cluster.sent]
    assert max(sizes) <= produce.MAX_BATCH_BYTES
    assert [len(sent.batches) for sent in cluster.sent] == [2, 2, 1]


async def test_two_batches_of_a_partition_never_share_a_request(cluster: ScriptedLeaders) -> None:
    """As of an owner and of a former one in the same process. The cluster checks it."""
    former, present, other = owner(cluster, 1), owner(cluster, 1), owner(cluster, 2)
    cluster.scripts[1] = [FENCED[0]]
    outcomes = await appended([former, present, other])
    assert isinstance(outcomes[0], FencedError)
    assert outcomes[1:] == [OFFSETS, 2 * OFFSETS]


def test_a_request_is_sent_as_the_client_would() -> None:
    topics = [("results", [(0, b"first"), (7, b"")]), ("results-\u00fc", [(2**31 - 1, bytes(100_000))])]
    assert sent(produce.ProduceBatches, topics) == sent(ProduceRequest_v7, topics)


def test_a_request_is_copied_only_once() -> None:
    batch = bytearray(1_000_000)
    tracemalloc.start()
    try:
        sent(produce.ProduceBatches, [("results", [(0, batch)])])
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(batch)
    finally:
        tracemalloc.stop()


def sent(kind: type[ProduceRequest_v7], topics: Any) -> bytes:
    """What aiokafka's connection writes for a request."""
    request = kind(None, -1, 1234, topics)
    message = request.build_request_header(correlation_id=7, client_id="worker").encode() + request.encode()
    return struct.pack(">i", len(message)) + message


# Whose answer is whose.


@pytest.mark.parametrize("code", FENCED)
async def test_one_that_is_fenced_ends_its_own_append_only(cluster: ScriptedLeaders, code: int) -> None:
    producers = owners(cluster, 3)
    cluster.scripts[1] = [code]
    outcomes = await appended(producers)
    assert [outcomes[0], outcomes[2]] == [0, 2 * OFFSETS]
    assert isinstance(outcomes[1], FencedError)
    assert "took over partition 1" in str(outcomes[1])
    again = await appended(producers)
    assert [again[0], again[2]] == [1, 2 * OFFSETS + 1]
    assert isinstance(again[1], UnavailableError)
    assert [sorted(one.batches) for one in cluster.sent] == [[0, 1, 2], [0, 2]]


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (MessageSizeTooLargeError.errno, RefusedError, r"set max\.message\.bytes=16777216"),
        (RecordListTooLargeError.errno, RefusedError, r"set max\.message\.bytes=16777216"),
        (InvalidTimestampError.errno, RefusedError, "Set the clock"),
        (TopicAuthorizationFailedError.errno, RefusedError, "give the worker's principal the missing ACL"),
        (ClusterAuthorizationFailedError.errno, RefusedError, "give the worker's principal the missing ACL"),
        (OutOfOrderSequenceNumber.errno, UnavailableError, "OutOfOrderSequenceNumber"),
        (UnknownProducerId.errno, UnavailableError, "UnknownProducerId"),
        (DuplicateSequenceNumber.errno, UnavailableError, "no longer knows where"),
        (2, UnavailableError, "CorruptRecord"),
        (12_345, UnavailableError, "error code 12345"),
        (-1, UnavailableError, "error code -1"),
    ],
)
async def test_one_that_fails_ends_its_own_append_only(
    cluster: ScriptedLeaders, code: int, kind: type[OwnerError], says: str
) -> None:
    producers = owners(cluster, 3)
    cluster.scripts[1] = [code]
    outcomes = await appended(producers)
    assert [outcomes[0], outcomes[2]] == [0, 2 * OFFSETS]
    with pytest.raises(kind, match=says):
        raise outcomes[1]  # type: ignore[misc]
    with pytest.raises(UnavailableError, match="failed before"):
        await producers[1].append(records())
    assert len(cluster.sent) == 1


async def test_an_error_in_the_sequence_is_the_cause_of_what_is_raised(cluster: ScriptedLeaders) -> None:
    """The zombie test tells by it whether a zombie was stopped by its epoch."""
    cluster.scripts[0] = [OutOfOrderSequenceNumber.errno]
    with pytest.raises(UnavailableError) as raised:
        await owner(cluster, 0).append(records())
    assert isinstance(raised.value.__cause__, OutOfOrderSequenceNumber)


async def test_a_duplicate_with_an_offset_is_a_success(cluster: ScriptedLeaders) -> None:
    cluster.scripts[0] = [(DuplicateSequenceNumber.errno, 41)]
    producer = owner(cluster, 0)
    assert await producer.append(records(3)) == 41
    assert producer.broker_time is None
    await producer.append(records())
    assert DefaultRecordBatch(cluster.sent[-1].batches[0]).base_sequence == 3
    assert producer.broker_time == DATED / 1000


# Trying again.

PASSING: list[Script] = [
    NotLeaderForPartitionError.errno,
    LeaderNotAvailableError.errno,
    UnknownTopicOrPartitionError.errno,
    TIMED_OUT,
    NotEnoughReplicasError.errno,
    NotEnoughReplicasAfterAppendError.errno,
    KafkaStorageError.errno,
    NOTHING,
    KafkaConnectionError("closed"),
    NodeNotReadyError("down"),
    RequestTimedOutError("silent"),
    StaleMetadata("gone"),
    CorrelationIdError("mixed up"),
    OSError("reset"),
    KeyError("closed underneath"),
    AssertionError("closed underneath"),
]


@pytest.mark.parametrize("script", PASSING, ids=lambda one: "nothing" if one is NOTHING else str(one))
async def test_after_what_passes_the_same_bytes_are_sent_again(
    cluster: ScriptedLeaders, script: Script
) -> None:
    producers = owners(cluster, 2)
    await appended(producers)
    cluster.scripts[1] = [script, script]
    assert await appended(producers) == [1, OFFSETS + 1]
    tries = [one.batches[1] for one in cluster.sent if 1 in one.batches][1:]
    assert len(tries) == 3
    assert len(set(tries)) == 1
    assert DefaultRecordBatch(tries[0]).base_sequence == 1
    if not isinstance(script, Exception):
        assert len([one for one in cluster.sent if 0 in one.batches]) == 2, "another partition was sent again"


@pytest.mark.parametrize(
    ("script", "refreshes"),
    [
        (NotLeaderForPartitionError.errno, 1),
        (UnknownTopicOrPartitionError.errno, 1),
        (NodeNotReadyError("down"), 1),
        (KafkaConnectionError("closed"), 1),
        (NotEnoughReplicasError.errno, 0),
        (TIMED_OUT, 0),
    ],
    ids=str,
)
async def test_leaders_are_looked_for_again_if_they_may_have_changed(
    cluster: ScriptedLeaders, script: Script, refreshes: int
) -> None:
    cluster.scripts[0] = [script]
    await owner(cluster, 0).append(records())
    assert cluster.refreshed == refreshes


async def test_a_batch_follows_its_leader(cluster: ScriptedLeaders) -> None:
    cluster.scripts[0] = [NotLeaderForPartitionError.errno]
    cluster.on_answer = lambda: cluster.leaders.update({0: 2})
    await owner(cluster, 0).append(records())
    assert [one.node for one in cluster.sent] == [1, 2]


async def test_an_append_gives_up_with_the_last_error_when_its_time_is_up() -> None:
    cluster = ScriptedLeaders(request_timeout=0.05)
    cluster.scripts[0] = [NotEnoughReplicasError.errno] * 100_000
    with pytest.raises(
        UnavailableError, match=r"appending to results/0: \[Error 19\] NotEnoughReplicasError$"
    ):
        await owner(cluster, 0).append(records())


async def test_an_append_without_any_answer_gives_up_when_its_time_is_up() -> None:
    cluster = ScriptedLeaders(request_timeout=0.05)
    cluster.answering.clear()
    with pytest.raises(UnavailableError, match="appending to results/0: TimeoutError: no answer within"):
        await owner(cluster, 0).append(records())


# Giving up.


async def test_an_append_that_was_canceled_is_not_sent_again(cluster: ScriptedLeaders) -> None:
    producers = owners(cluster, 2)
    cluster.scripts |= {partition: [NotEnoughReplicasError.errno] for partition in (0, 1)}
    cluster.answering.clear()
    both = [asyncio.create_task(one.append(records())) for one in producers]
    await turns()
    assert [sorted(one.batches) for one in cluster.sent] == [[0, 1]]
    both[0].cancel()
    await turns()
    cluster.answering.set()
    assert await both[1] == OFFSETS
    assert [sorted(one.batches) for one in cluster.sent] == [[0, 1], [1]]


async def test_an_append_that_is_canceled_while_the_connection_opens_is_not_sent(
    cluster: ScriptedLeaders,
) -> None:
    """The group was formed by then, with this batch."""
    producers = owners(cluster, 2)
    cluster.open.clear()
    canceled, other = [asyncio.create_task(one.append(records())) for one in producers]
    await cluster.under_way.wait()
    canceled.cancel()
    await asyncio.gather(canceled, return_exceptions=True)
    cluster.open.set()
    assert await other == OFFSETS
    assert [sorted(one.batches) for one in cluster.sent] == [[1]]


async def test_an_append_that_is_canceled_while_it_waits_is_not_sent(cluster: ScriptedLeaders) -> None:
    producers = owners(cluster, 3)
    cluster.answering.clear()
    first = await begun(cluster, producers[0])
    canceled, other = [asyncio.create_task(one.append(records())) for one in producers[1:]]
    await turns()
    canceled.cancel()
    await turns()
    cluster.answering.set()
    assert [await first, await other] == [0, 2 * OFFSETS]
    assert [sorted(one.batches) for one in cluster.sent] == [[0], [2]]


@pytest.mark.parametrize("clock", ["boottime", "walltime"])
async def test_nothing_is_sent_after_its_time_even_by_a_loop_that_was_frozen(
    cluster: ScriptedLeaders, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """As after a machine was suspended or paused: the event loop's time does not count that."""
    now = [100.0]
    monkeypatch.setattr(produce, clock, lambda: now[0])
    producers = owners(cluster, 2)
    cluster.open.clear()
    older = await begun(cluster, producers[0])
    now[0] += 9
    younger = asyncio.create_task(producers[1].append(records()))
    await turns()
    now[0] += 2
    cluster.open.set()
    assert await younger == OFFSETS
    await turns()
    assert [sorted(one.batches) for one in cluster.sent] == [[1]]
    older.cancel()
    await asyncio.gather(older, return_exceptions=True)


async def test_a_producer_that_is_closed_sends_nothing_more(cluster: ScriptedLeaders) -> None:
    producer = owner(cluster, 0)
    cluster.scripts[0] = [NotEnoughReplicasError.errno]
    cluster.answering.clear()
    append = await begun(cluster, producer)
    await producer.close()
    cluster.answering.set()
    with pytest.raises(UnavailableError):
        await append
    assert len(cluster.sent) == 1


async def test_a_request_that_nobody_waits_for_any_more_holds_the_next_one_back(
    cluster: ScriptedLeaders,
) -> None:
    """It is at the broker, and the next one could take effect there after its own caller had given up."""
    producers = owners(cluster, 2)
    cluster.answering.clear()
    canceled = await begun(cluster, producers[0])
    await turns()
    canceled.cancel()
    await asyncio.gather(canceled, return_exceptions=True)
    waiting = asyncio.create_task(producers[1].append(records()))
    await turns()
    assert [sorted(one.batches) for one in cluster.sent] == [[0]]
    cluster.answering.set()
    assert await waiting == OFFSETS


# A slow replica.


async def test_a_partition_with_a_slow_replica_holds_up_others_once(cluster: ScriptedLeaders) -> None:
    slow, quick = owners(cluster, 2)
    cluster.scripts[0] = [TIMED_OUT, TIMED_OUT]
    assert await appended([slow, quick]) == [0, OFFSETS]
    assert [(one.lane, sorted(one.batches)) for one in cluster.sent] == [
        (Lane.PRODUCE, [0, 1]),
        (Lane.PRODUCE_BESIDE, [0]),
        (Lane.PRODUCE_BESIDE, [0]),
    ]
    held, beside, _ = (one.timeout_ms for one in cluster.sent)
    assert held == 1000
    assert beside == 5000


async def test_a_partition_stays_outside_the_group_until_its_replicas_are_quick(
    cluster: ScriptedLeaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = owner(cluster, 0)
    cluster.scripts[0] = [TIMED_OUT]
    monkeypatch.setattr(fenced_producer, "hold_seconds", lambda _: 0.0)
    await producer.append(records())
    await producer.append(records())
    monkeypatch.setattr(fenced_producer, "hold_seconds", lambda _: 10.0)
    await producer.append(records())
    await producer.append(records())
    assert [one.lane for one in cluster.sent] == [Lane.PRODUCE, *[Lane.PRODUCE_BESIDE] * 3, Lane.PRODUCE]
