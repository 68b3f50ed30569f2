"""The fenced producer on the real broker: what it writes, and what errors mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import DuplicateSequenceNumber
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.record.default_records import _DefaultRecordBatchPy

from waypost.kafka.cluster_connections import ClusterConnections
from waypost_worker.devserver import Servers
from waypost_worker.kafka import fenced_producer
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fenced_producer import FencedProducer, claim_epoch
from waypost_worker.kafka.produce import ProduceGroup
from waypost_worker.kafka.topics import create_scratch_topic
from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    RefusedError,
    ResultRecord,
    UnavailableError,
)


@pytest.fixture
def connection(servers: Servers) -> Connection:
    return Connection(servers.kafka.bootstrap_servers)


@pytest.fixture
def client(connection: Connection) -> ClusterClient:
    return ClusterClient(connection)


@pytest.fixture
async def topic(connection: Connection, topic_prefix: str) -> str:
    await create_scratch_topic(connection, topic_prefix)
    return topic_prefix


@asynccontextmanager
async def producer(client: ClusterClient, topic: str, fence: Fence) -> AsyncIterator[FencedProducer]:
    made = FencedProducer(client, topic, 0, fence)
    try:
        await made.start()
        yield made
    finally:
        await made.close()


def records(count: int) -> list[ResultRecord]:
    return [ResultRecord(b"key", b"%d" % n, []) for n in range(count)]


async def first_batch(connection: Connection, topic: str) -> Any:
    """The batch at offset 0, as it lies in the log."""
    client = ClusterConnections(bootstrap_servers=connection.bootstrap_servers)
    await client.bootstrap()
    try:
        request = FetchRequest(500, 1, 1 << 20, 0, [(topic, [(0, 0, 1 << 20)])], rack_id="")
        response = await client.send(client.get_random_node(), request)
    finally:
        await client.close()
    return _DefaultRecordBatchPy(bytes(response.topics[0][1][0][-1]))


async def test_a_batch_in_the_log_carries_the_claimed_id_and_epoch_and_no_transaction(
    client: ClusterClient, connection: Connection, topic: str
) -> None:
    await claim_epoch(client, topic)
    fence = await claim_epoch(client, topic)
    async with producer(client, topic, fence) as owner:
        await owner.append(records(3))
    batch = await first_batch(connection, topic)
    assert (batch.producer_id, batch.producer_epoch) == fence
    assert fence.producer_epoch == 1
    assert batch.base_sequence == 0
    assert not batch.is_transactional
    assert len(list(batch)) == 3


async def test_a_new_producer_object_with_an_old_epoch_is_fenced_too(
    client: ClusterClient, topic: str
) -> None:
    old = await claim_epoch(client, topic)
    async with producer(client, topic, await claim_epoch(client, topic)) as owner:
        await owner.append(records(1))
        async with producer(client, topic, old) as reborn:
            with pytest.raises(FencedError, match="took over partition 0"):
                await reborn.append(records(1))
        assert await owner.append(records(1)) == 1


async def test_an_error_in_the_sequence_ends_the_claim_and_does_not_count_as_fencing(
    client: ClusterClient, topic: str
) -> None:
    fence = await claim_epoch(client, topic)
    async with producer(client, topic, fence) as owner, producer(client, topic, fence) as double:
        await owner.append(records(2))
        with pytest.raises(UnavailableError, match="Sequence"):
            await double.append(records(3))
        with pytest.raises(UnavailableError, match="failed before"):
            await double.append(records(3))
        assert await owner.append(records(1)) == 2


async def test_a_batch_that_kafka_has_but_has_forgotten_where_is_in_doubt(
    client: ClusterClient, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker answers a repeated batch with its offset, or, if it has forgotten that, with an error that the client
    turns into an offset of -1.
    """
    answer = ProduceResponse_v7(
        topics=[(topic, [(0, DuplicateSequenceNumber.errno, -1, -1, 0)])], throttle_time_ms=0
    )

    async def answered(self: ClusterConnections, node: int, request: Any, *, group: Any = None) -> Any:
        response = await send(self, node, request, group=group)
        return answer if isinstance(request, ProduceGroup) else response

    send = ClusterConnections.send
    async with producer(client, topic, await claim_epoch(client, topic)) as owner:
        monkeypatch.setattr(ClusterConnections, "send", answered)
        with pytest.raises(UnavailableError, match="no longer knows where"):
            await owner.append(records(1))


async def test_what_does_not_fit_into_one_batch_is_not_begun(client: ClusterClient, topic: str) -> None:
    large = [ResultRecord(b"key", bytes(3_000_000), []) for _ in range(6)]
    async with producer(client, topic, await claim_epoch(client, topic)) as owner:
        with pytest.raises(ValueError, match="only 5 of 6 results fit"):
            await owner.append(large)
        assert await owner.append(records(1)) == 0


async def test_sequence_numbers_are_given_up_long_before_aiokafka_wraps_them(
    client: ClusterClient, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fenced_producer.LAST_SEQUENCE < 2**31
    monkeypatch.setattr(fenced_producer, "LAST_SEQUENCE", 5)
    async with producer(client, topic, await claim_epoch(client, topic)) as owner:
        await owner.append(records(3))
        with pytest.raises(UnavailableError, match="used up"):
            await owner.append(records(3))
    async with producer(client, topic, await claim_epoch(client, topic)) as renewed:
        assert await renewed.append(records(3)) == 3


async def test_a_topic_that_takes_no_large_batches_is_for_a_person_to_fix(
    client: ClusterClient, connection: Connection, topic_prefix: str
) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap_servers)
    await admin.start()
    try:
        small = NewTopic(topic_prefix, 1, 1, topic_configs={"max.message.bytes": "10000"})
        await admin.create_topics([small])
    finally:
        await admin.close()
    async with producer(client, topic_prefix, await claim_epoch(client, topic_prefix)) as owner:
        with pytest.raises(RefusedError, match=r"set max\.message\.bytes=16777216"):
            await owner.append([ResultRecord(b"key", b"x" * 20_000, [])])


async def test_a_missing_topic_is_waited_for_no_longer_than_the_time_limit(
    servers: Servers, topic_prefix: str
) -> None:
    client = ClusterClient(Connection(servers.kafka.bootstrap_servers, request_timeout=0.5))
    async with producer(client, topic_prefix, Fence(1, 0)) as owner:
        async with asyncio.timeout(30):
            with pytest.raises(UnavailableError):
                await owner.append(records(1))


async def test_closing_a_producer_leaves_no_task_behind(client: ClusterClient, topic: str) -> None:
    before = asyncio.all_tasks()
    async with producer(client, topic, await claim_epoch(client, topic)) as owner:
        await owner.append(records(1))
        assert asyncio.all_tasks() - before
    assert asyncio.all_tasks() == before


async def test_nothing_listens_there(topic_prefix: str, servers: Servers) -> None:
    nowhere = ClusterClient(Connection("127.0.0.1:1", request_timeout=0.5))
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
        await claim_epoch(nowhere, topic_prefix)
