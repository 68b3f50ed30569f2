"""A producer, with brokers that answer as a test tells them to, and recognize what they have."""

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    CoordinatorLoadInProgressError,
    DuplicateSequenceNumber,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatch
from tests.support.scripted_connections import ScriptedConnections

from waypost.kafka.batch_producer import BatchProducer

TOPIC = "commands"
FAR = 60.0
ID, EPOCH = 7, 2


class Cluster(ScriptedConnections):
    """Partitions are led by brokers 1 and 2 in turn. ``scripts`` are the next answers
    for a partition: an error code, or an exception for the whole request, which takes effect all the same.
    """

    def __init__(self) -> None:
        super().__init__(TOPIC, 1, 2, 1, 2)
        self.scripts: dict[int, list[int | Exception]] = defaultdict(list)
        self.refusals: list[int | Exception] = []  # of ids
        self.requests: list[tuple[int, list[int]]] = []  # broker and partitions
        self.logs: dict[int, list[bytes]] = defaultdict(list)
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, node: int, request: Any, *, group: object = None) -> Any:
        if not isinstance(request, ProduceRequest):
            code = self.refusals.pop(0) if self.refusals else 0
            if isinstance(code, Exception):
                raise code
            return SimpleNamespace(error_code=code, producer_id=ID, producer_epoch=EPOCH)
        struct_ = request.prepare({0: (3, 7)})
        assert (struct_.get_item("transactional_id"), struct_.get_item("required_acks")) == (None, -1)
        ((_, batches),) = struct_.get_item("topics")
        self.requests.append((node, [number for number, _ in batches]))
        self.came.set()
        await self.open.wait()
        answers, failure = [], None
        for number, data in batches:
            script = self.scripts[number].pop(0) if self.scripts[number] else 0
            if not script or isinstance(script, Exception):
                if data not in self.logs[number]:
                    self.logs[number].append(data)
                answers.append((number, 0, 100 * number + self.logs[number].index(data), -1, 0))
                failure = script or failure
            else:
                answers.append((number, script, -1, -1, 0))
        if isinstance(failure, Exception):
            raise failure
        return SimpleNamespace(topics=[(TOPIC, answers[::-1])])


@asynccontextmanager
async def producing(cluster: Cluster, **options: Any) -> AsyncIterator[BatchProducer]:
    before = asyncio.all_tasks()
    producer = BatchProducer(
        TOPIC, {"bootstrap_servers": "broker:1", "retry_backoff_ms": 1, "max_batch_size": 1000, **options}
    )
    producer.connections = cluster  # type: ignore[assignment]
    try:
        async with asyncio.timeout(FAR):
            await producer.start()
            yield producer
    finally:
        await producer.close()
        assert cluster.closed
        assert asyncio.all_tasks() == before


def send(producer: BatchProducer, partition: int, *values: bytes) -> "asyncio.Future[int]":
    batch = producer.create_batch()
    for value in values:
        assert batch.append(key=b"k", value=value, headers=[("h", b"x")])
    return producer.send_batch(batch, partition)


def sequences(log: list[bytes]) -> list[tuple[int, int, int]]:
    return [struct.unpack_from(">qhi", raw, 43) for raw in log]


def values(log: list[bytes]) -> list[bytes | None]:
    return [record.value for raw in log for record in DefaultRecordBatch(raw)]


async def test_batches_of_a_partition_land_in_order_under_one_producer() -> None:
    cluster = Cluster()
    async with producing(cluster) as producer:
        assert await send(producer, 0, b"1", b"2") == 0
        assert await send(producer, 0, b"3") == 1
        assert await send(producer, 1, b"4") == 100
    assert values(cluster.logs[0]) == [b"1", b"2", b"3"]
    assert sequences(cluster.logs[0]) == [(ID, EPOCH, 0), (ID, EPOCH, 2)]
    assert sequences(cluster.logs[1]) == [(ID, EPOCH, 0)]


async def test_what_waits_for_a_broker_goes_in_one_request() -> None:
    cluster = Cluster()
    async with producing(cluster) as producer:
        await asyncio.gather(*(send(producer, number, b"v") for number in range(4)))
    assert sorted(cluster.requests) == [(1, [0, 2]), (2, [1, 3])]


@pytest.mark.parametrize("problem", [NotLeaderForPartitionError.errno, KafkaConnectionError("lost reply")])
async def test_a_batch_is_sent_again_with_its_sequence_until_there_is_an_answer(problem: Any) -> None:
    cluster = Cluster()
    cluster.scripts[0] = [problem] * 3
    async with producing(cluster) as producer:
        assert await asyncio.gather(send(producer, 0, b"1"), send(producer, 1, b"2")) == [0, 100]
        assert await send(producer, 0, b"3") == 1
    assert sequences(cluster.logs[0]) == [(ID, EPOCH, 0), (ID, EPOCH, 1)]
    assert len([node for node, partitions in cluster.requests if 0 in partitions]) == 5
    assert cluster.refreshed


async def test_a_batch_that_a_broker_has_without_knowing_where_has_landed() -> None:
    cluster = Cluster()
    cluster.scripts[0] = [DuplicateSequenceNumber.errno]
    async with producing(cluster) as producer:
        assert await send(producer, 0, b"1") == -1


@pytest.mark.parametrize(
    "error", [OutOfOrderSequenceNumber, MessageSizeTooLargeError, TopicAuthorizationFailedError]
)
async def test_what_trying_again_does_not_help_fails_and_disturbs_no_other(error: Any) -> None:
    cluster = Cluster()
    cluster.scripts[0] = [error.errno]
    async with producing(cluster) as producer:
        found = await asyncio.gather(send(producer, 0, b"1"), send(producer, 2, b"2"), return_exceptions=True)
    assert isinstance(found[0], error)
    assert found[1] == 200


async def test_an_error_that_nobody_expects_fails_the_batch() -> None:
    cluster = Cluster()
    cluster.scripts[0] = [NotImplementedError("of this version")]
    async with producing(cluster) as producer:
        with pytest.raises(KafkaError, match="version"):
            await send(producer, 0, b"1")


async def test_a_silent_broker_holds_up_no_other() -> None:
    cluster = Cluster()
    cluster.open.clear()
    async with producing(cluster) as producer:
        silent = send(producer, 0, b"1")
        await cluster.until(lambda: bool(cluster.requests))
        held, cluster.open = cluster.open, asyncio.Event()
        cluster.open.set()
        assert await send(producer, 1, b"2") == 100
        assert not silent.done()
        assert not held.is_set()
    assert silent.cancelled()


async def test_a_partition_without_a_leader_is_waited_for() -> None:
    cluster = Cluster()
    cluster.lead(-1, 2)
    async with producing(cluster) as producer:
        landed = send(producer, 0, b"1")
        await cluster.until(lambda: cluster.refreshed >= 3)
        cluster.lead(2, 2)
        assert await send(producer, 1, b"2") == 100
        assert await landed == 0


async def test_an_id_is_asked_for_until_there_is_one() -> None:
    cluster = Cluster()
    cluster.refusals = [CoordinatorLoadInProgressError.errno, KafkaConnectionError("closed")]
    async with producing(cluster) as producer:
        assert await send(producer, 0, b"1") == 0
    cluster.refusals = [ClusterAuthorizationFailedError.errno]
    with pytest.raises(ClusterAuthorizationFailedError):
        async with producing(cluster):
            raise AssertionError


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_batches_are_compressed_as_asked(codec: str | None) -> None:
    cluster = Cluster()
    async with producing(cluster, compression_type=codec) as producer:
        await send(producer, 0, bytes(500))
    assert values(cluster.logs[0]) == [bytes(500)]
    assert (len(cluster.logs[0][0]) < 300) == (codec is not None)


async def test_a_batch_has_a_limit_that_a_single_record_may_exceed() -> None:
    async with producing(Cluster()) as producer:
        batch = producer.create_batch()
        assert batch.append(key=None, value=bytes(2000), headers=[])
        assert not batch.append(key=None, value=b"", headers=[])
        assert (batch.count, batch.size() > 2000) == (1, True)


@pytest.mark.parametrize(
    "options",
    [{"compression_type": "rar"}, {"security_protocol": "TLS"}, {"unknown": 1}, {"max_batch_size": "x"}],
)
async def test_options_that_a_producer_does_not_accept_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        BatchProducer(TOPIC, {"bootstrap_servers": "broker:1", **options})
