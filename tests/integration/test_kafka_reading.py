"""Records that a Kafka client stumbles over: they are read, once and in order, or rightly left out."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.odd_batches import send

from waypost.wire.envelope import KafkaRecord
from waypost_worker.devserver import Servers
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_scratch_topic


@pytest.fixture
def connection(servers: Servers) -> Connection:
    return Connection(servers.kafka.bootstrap_servers)


@pytest.fixture
async def topic(connection: Connection, topic_prefix: str) -> str:
    await create_scratch_topic(connection, topic_prefix)
    return topic_prefix


@pytest.fixture
async def log(connection: Connection, topic: str) -> AsyncIterator[KafkaCommandLog]:
    log = KafkaCommandLog(ClusterClient(connection), topic, 0)
    yield log
    await log.close()


async def fetch(log: KafkaCommandLog, count: int, most: int) -> list[KafkaRecord]:
    found: list[KafkaRecord] = []
    for _ in range(20):
        found += await log.fetch(most)
        if len(found) >= count:
            break
    return found


async def test_header_names_that_are_not_utf8_do_not_stop_a_partition(
    connection: Connection, topic: str, log: KafkaCommandLog
) -> None:
    async with AIOKafkaProducer(**connection.options()) as producer:
        await send(producer, topic, [b"0", b"1"], odd=[])
        await send(producer, topic, [b"2", b"3", b"4"], odd=[1])
        await send(producer, topic, [b"5"], odd=[0])
        await send(producer, topic, [b"6", b"7"], odd=[])
    await log.seek(0)
    found = await fetch(log, 8, most=3)
    assert [record.value for record in found] == [b"%d" % n for n in range(8)]
    assert [record.offset for record in found] == list(range(8))
    names = [record.headers[0][0] for record in found]
    assert names == [r"\xff\xfedd" if n in (3, 5) else "even" for n in range(8)]
    assert {record.headers[1] for record in found} == {("other", b"2")}
    await log.seek(4)
    assert [record.offset for record in await fetch(log, 4, most=100)] == [4, 5, 6, 7]
    assert [record.offset for record in await log.read(3, 6)] == [3, 4, 5]
    assert [record.offset for record in await log.read(5, 6)] == [5]


async def test_a_record_reads_the_same_the_odd_way_and_the_usual_way(
    connection: Connection, topic: str, log: KafkaCommandLog
) -> None:
    async with AIOKafkaProducer(**connection.options()) as producer:
        await send(producer, topic, [b"even", b"odd"], odd=[1])
    await log.seek(0)
    fetched = await fetch(log, 2, most=1)
    assert fetched == await log.read(0, 2)
    assert (fetched[0].key, fetched[0].value) == (b"key", b"even")


async def test_odd_names_in_an_aborted_transaction_stay_unseen(
    connection: Connection, topic: str, log: KafkaCommandLog
) -> None:
    agent = AIOKafkaProducer(**connection.options(), transactional_id=f"{topic}.agent")
    await agent.start()
    try:
        for values, commit in (([b"kept"], True), ([b"dropped", b"dropped"], False), ([b"kept too"], True)):
            await agent.begin_transaction()
            await send(agent, topic, values, odd=[0])
            await (agent.commit_transaction() if commit else agent.abort_transaction())
    finally:
        await agent.stop()
    await log.seek(0)
    found = await fetch(log, 2, most=10)
    assert [record.value for record in found] == [b"kept", b"kept too"]
    assert await log.fetch(10) == []


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_commands_are_read(
    connection: Connection, topic: str, log: KafkaCommandLog, compression: str
) -> None:
    async with AIOKafkaProducer(
        **connection.options(), compression_type=compression, max_batch_size=1 << 20
    ) as producer:
        batch = producer.create_batch()
        for n in range(100):
            batch.append(timestamp=None, key=b"key", value=b"%d" % n * 100)
        batch.close()
        await (await producer.send_batch(batch, topic, partition=0))
    await log.seek(10)
    found = await fetch(log, 90, most=1000)
    assert [record.value for record in found] == [b"%d" % n * 100 for n in range(10, 100)]


async def test_a_command_far_larger_than_a_small_fetch_is_read(
    connection: Connection, topic: str, log: KafkaCommandLog
) -> None:
    async with AIOKafkaProducer(**connection.options(), max_request_size=2_000_000) as producer:
        await producer.send_and_wait(topic, b"x" * 1_000_000, partition=0)
    (found,) = await log.read(0, 1)
    assert len(found.value or b"") == 1_000_000
