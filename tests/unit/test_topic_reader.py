"""A reader of partitions, with brokers that answer fetches as a test tells them to."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from tests.support.scripted_connections import ScriptedConnections

from waypost.kafka import topic_reader
from waypost.kafka.log_offsets import FIRST
from waypost.kafka.topic_reader import TopicReader

TOPIC = "results"
FAR = 60.0
A, B = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


class Cluster(ScriptedConnections):
    """Partition 0 is led by broker 1 and partition 1 by broker 2; each has a log of
    batches with 10 records.
    """

    def __init__(self) -> None:
        super().__init__(TOPIC, 1, 2)
        self.logs = {0: 3, 1: 3}  # batches
        self.first = {0: 0, 1: 0}
        self.errors: dict[int, list[int | Exception]] = defaultdict(list)
        self.replica = -1
        self.asked: list[tuple[int, int, int]] = []  # broker, partition, offset
        self.waits: list[int] = []
        self.held: dict[int, asyncio.Event] = {}

    async def send(self, node: int, request: Any, *, group: object = None) -> Any:
        assert isinstance(request, FetchRequest)
        struct = request.prepare({1: (0, 11)})
        self.waits.append(struct.get_item("max_wait_time"))
        ((_, wanted),) = struct.get_item("topics")
        for number, _, offset, *_ in wanted:
            self.asked.append((node, number, offset))
        self.came.set()
        if node in self.held:
            await self.held[node].wait()
        answers = [self._answer(number, offset) for number, _, offset, *_ in wanted]
        if not any(raw for *_, raw in answers) and all(code == 0 for _, code, *_ in answers):
            await asyncio.sleep(0.001)  # a long poll
        return FetchResponse_v11(throttle_time_ms=0, error_code=0, session_id=0, topics=[(TOPIC, answers)])

    def _answer(self, number: int, offset: int) -> tuple[Any, ...]:
        error = self.errors[number].pop(0) if self.errors[number] else 0
        if isinstance(error, Exception):
            raise error
        index = offset // 10
        raw = b"" if error or index >= self.logs[number] else batch(number, index * 10)
        return (number, error, -1, -1, -1, [], self.replica, raw)


def batch(partition: int, offset: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 20,
    )  # fmt: skip
    for number in range(10):
        builder.append(
            number, timestamp=1, key=b"k", value=b"%d/%d" % (partition, offset + number), headers=[]
        )
    raw = builder.build()
    raw[:8] = offset.to_bytes(8, "big")
    return bytes(raw)


@asynccontextmanager
async def reading(
    cluster: Cluster, *, passed: Callable[[TopicPartition, int], None] | None = None, **options: Any
) -> AsyncIterator[TopicReader]:
    before = asyncio.all_tasks()
    reader = TopicReader(
        TOPIC, {"bootstrap_servers": "broker:1", "retry_backoff_ms": 1, **options}, passed=passed
    )
    reader.connections = cluster  # type: ignore[assignment]
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()
        assert cluster.closed
        assert await reader.take(FAR) == {}
        assert asyncio.all_tasks() == before


async def taken(reader: TopicReader, count: int, most: int | None = None) -> dict[int, list[int]]:
    """Return the offsets of this many records, by partition."""
    found: dict[int, list[int]] = defaultdict(list)
    async with asyncio.timeout(FAR):
        while sum(map(len, found.values())) < count:
            for partition, records in (await reader.take(FAR, most)).items():
                found[partition.partition] += [record.offset for record in records]
    return found


async def test_records_come_in_order_from_each_position_on() -> None:
    ends: dict[TopicPartition, int] = {}
    cluster = Cluster()
    async with reading(cluster, passed=ends.__setitem__) as reader:
        reader.read_only({A: 0, B: 15})
        found = await taken(reader, 45, most=7)
        assert found == {0: list(range(30)), 1: list(range(15, 30))}
        assert (reader.position(A), reader.position(B)) == (30, 30)
        assert ends == {A: 30, B: 30}
        assert await reader.take(0) == {}
        cluster.logs[0] = 4
        assert await taken(reader, 10) == {0: list(range(30, 40))}


async def test_no_partition_is_repeatedly_given_before_the_others() -> None:
    cluster = Cluster()
    async with reading(cluster) as reader:
        reader.read_only({A: 0, B: 0})
        await cluster.until(lambda: all(reading.count >= 30 for reading in reader._readings.values()))
        assert set(await taken(reader, 2, most=1)) == {0, 1}


async def test_what_was_on_its_way_at_a_seek_comes_to_nothing() -> None:
    cluster = Cluster()
    cluster.held[1] = asyncio.Event()
    async with reading(cluster) as reader:
        reader.seek(A, 0)
        await cluster.until(lambda: bool(cluster.asked))
        reader.seek(A, 20)
        cluster.held[1].set()
        assert await taken(reader, 10) == {0: list(range(20, 30))}
        reader.leave_out(A)
        cluster.logs[0] = 5
        assert await reader.take(0.01) == {}


async def test_a_silent_broker_holds_up_no_other() -> None:
    cluster = Cluster()
    cluster.held[1] = asyncio.Event()
    async with reading(cluster) as reader:
        reader.read_only({A: 0, B: 0})
        assert await taken(reader, 30) == {1: list(range(30))}


@pytest.mark.parametrize("problem", [NotLeaderForPartitionError.errno, KafkaConnectionError("closed"), -1])
async def test_a_fetch_that_fails_is_tried_again(problem: Any) -> None:
    cluster = Cluster()
    cluster.errors[0] = [problem] * 3
    async with reading(cluster) as reader:
        reader.seek(A, 0)
        assert await taken(reader, 30) == {0: list(range(30))}
    assert cluster.refreshed


async def test_a_partition_without_a_leader_is_waited_for() -> None:
    cluster = Cluster()
    cluster.lead(-1, 2)
    async with reading(cluster) as reader:
        reader.seek(A, 0)
        await cluster.until(lambda: cluster.refreshed >= 3)
        cluster.lead(2, 2)
        assert await taken(reader, 30) == {0: list(range(30))}
    assert {node for node, *_ in cluster.asked} == {2}


@pytest.mark.parametrize(
    ("first", "position", "read", "skips"),
    [
        pytest.param(20, 5, range(20, 30), True, id="retention overtook it"),
        pytest.param(0, 31, range(30), True, id="the log was truncated before it"),
        pytest.param(0, 15, range(15, 30), False, id="it is there (KAFKA-16073)"),
    ],
)
async def test_only_a_position_that_a_log_does_not_have_continues_at_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    first: int,
    position: int,
    read: range,
    skips: bool,
) -> None:
    async def offsets_at(_: object, times: dict[TopicPartition, int], __: int) -> dict[TopicPartition, int]:
        return {partition: first if time == FIRST else 30 for partition, time in times.items()}

    monkeypatch.setattr(topic_reader, "offsets_at", offsets_at)
    cluster = Cluster()
    cluster.errors[0] = [OffsetOutOfRangeError.errno]
    async with reading(cluster) as reader:
        reader.seek(A, position)
        assert await taken(reader, len(read)) == {0: list(read)}
    said = f"results/0 no longer has offset {position}; reading continues at {first}"
    assert (said in caplog.text) is skips


async def test_a_denial_is_raised_each_time_and_reading_continues_after_it() -> None:
    cluster = Cluster()
    cluster.errors[0] = [TopicAuthorizationFailedError.errno] * 2
    async with reading(cluster) as reader:
        reader.seek(A, 0)
        for _ in range(2):
            with pytest.raises(TopicAuthorizationFailedError, match=TOPIC):
                await reader.take(FAR)
        assert await taken(reader, 30) == {0: list(range(30))}


async def test_an_error_that_nobody_expects_comes_to_the_application() -> None:
    cluster = Cluster()
    cluster.errors[0] = [NotImplementedError("of this version")]
    async with reading(cluster) as reader:
        reader.seek(A, 0)
        with pytest.raises(NotImplementedError, match="version"):
            await reader.take(FAR)
        assert await taken(reader, 30) == {0: list(range(30))}


async def test_a_partition_that_nobody_takes_is_fetched_no_further_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic_reader, "_MOST_RECORDS", 15)
    cluster = Cluster()
    cluster.lead(1, 1)
    cluster.logs = {0: 100, 1: 0}
    async with reading(cluster) as reader:
        reader.read_only({A: 0, B: 0})
        await cluster.until(lambda: len(cluster.asked) >= 50)
        assert max(offset for _, number, offset in cluster.asked if number == 0) == 10
        assert cluster.waits[-1] < cluster.waits[0] == 500
        assert len((await taken(reader, 1000))[0]) == 1000


async def test_no_partition_is_always_the_first_of_a_fetch() -> None:
    """The first one with records is the only one that gives a batch that is larger than all limits."""
    cluster = Cluster()
    cluster.lead(1, 1)
    cluster.logs = {0: 0, 1: 0}
    async with reading(cluster) as reader:
        reader.read_only({A: 0, B: 0})
        await cluster.until(lambda: len(cluster.asked) >= 200)
    firsts = [number for _, number, _ in cluster.asked[::2]]
    assert min(firsts.count(0), firsts.count(1)) >= 20


async def test_records_come_from_the_replica_that_is_near_until_it_fails() -> None:
    cluster = Cluster()
    cluster.replica = 2
    async with reading(cluster, client_rack="near") as reader:
        reader.seek(A, 0)
        await taken(reader, 30)
        assert [node for node, *_ in cluster.asked[:3]] == [1, 2, 2]
        cluster.replica = -1
        cluster.errors[0] = [OffsetOutOfRangeError.errno]  # it does not have what the leader has
        cluster.logs[0] = 4
        assert await taken(reader, 10) == {0: list(range(30, 40))}
        assert cluster.asked[-1][0] == 1


@pytest.mark.parametrize(
    "options", [{"isolation_level": "none"}, {"security_protocol": "TLS"}, {"unknown": 1}]
)
async def test_options_that_a_consumer_does_not_accept_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        topic_reader.require_consumer_options({"bootstrap_servers": "broker:1", **options})
