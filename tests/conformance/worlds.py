"""What a conformance suite needs besides a port: ways to fill a log, to leave gaps in it and to trim it.

A world holds one partition of each topic, for any number of owners. `kafka_world` is the real one; a
simulated one offers the same members, and is added to WORLDS.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from tests.support.timeouts import PATIENCE

from waypost.wire.topics import Topics
from waypost_worker.devserver import Servers
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import create_topics, delete_topic
from waypost_worker.partition.ports import CommandLog, ResultsLog

PARTITIONS = 2
PARTITION = 1


class Transaction(Protocol):
    """An agent's transaction on the command log, not yet ended."""

    async def commit(self) -> None: ...

    async def abort(self) -> None: ...


class World(Protocol):
    """Partitions of a command log, of which most tests use one, and one partition of a results log. Owners are those of
    one process.
    """

    def commands(self, partition: int = PARTITION) -> CommandLog:
        """The command log as one more owner sees it; the world closes it in the end."""
        ...

    def results(self) -> ResultsLog:
        """The results log as one more owner sees it; the world closes it in the end."""
        ...

    async def publish(self, values: Sequence[bytes | None], partition: int = PARTITION) -> list[int]:
        """Commands of an agent without transactions, all with key ``key``; their offsets."""
        ...

    async def begin(self, values: Sequence[bytes]) -> Transaction:
        """Commands of an agent in a transaction; they are in the log, and the transaction is open."""
        ...

    async def trim_commands(self, before: int) -> None:
        """Let retention remove what lies before this offset."""
        ...

    async def trim_results(self, before: int) -> None:
        """Let retention remove what lies before this offset."""
        ...

    async def recreate_commands(self) -> None:
        """Delete the topic of commands, and create another one of the same name."""
        ...

    async def leave_gap_in_results(self) -> None:
        """A record ``foreign`` in the results log, and behind it an offset at which a reader sees nothing."""
        ...


@dataclass(slots=True)
class _KafkaTransaction:
    _producer: AIOKafkaProducer
    _client: ClusterClient
    _partition: TopicPartition

    async def commit(self) -> None:
        await self._producer.commit_transaction()
        await self._settled()

    async def abort(self) -> None:
        await self._producer.abort_transaction()
        await self._settled()

    async def _settled(self) -> None:
        """Kafka says that a transaction has ended before its marker is in the partition: wait for that."""
        await self._producer.stop()
        async with asyncio.timeout(PATIENCE):
            while await self._end("read_committed") < await self._end("read_uncommitted"):
                pass

    async def _end(self, isolation_level: str) -> int:
        reader = PartitionReader(self._client, self._partition, isolation_level)
        try:
            return (await reader.bounds())[1]
        finally:
            await reader.close()


class KafkaWorld:
    """Topics of their own on the real Kafka."""

    def __init__(self, connection: Connection, topics: Topics) -> None:
        self._connection = connection
        self._client = ClusterClient(connection)
        self._topics = topics
        self._opened: list[CommandLog | ResultsLog] = []
        self._transactions = 0

    def commands(self, partition: int = PARTITION) -> CommandLog:
        log = KafkaCommandLog(self._client, self._topics.commands, partition)
        self._opened.append(log)
        return log

    def results(self) -> ResultsLog:
        log = KafkaResultsLog(self._client, self._topics, PARTITION)
        self._opened.append(log)
        return log

    async def publish(self, values: Sequence[bytes | None], partition: int = PARTITION) -> list[int]:
        async with AIOKafkaProducer(**self._connection.options()) as producer:
            sent = [
                await producer.send(
                    self._topics.commands, value, b"key", partition, headers=[("name", b"value")]
                )
                for value in values
            ]
            return [(await future).offset for future in sent]

    async def begin(self, values: Sequence[bytes]) -> Transaction:
        return await self._begin(self._topics.commands, values)

    async def trim_commands(self, before: int) -> None:
        await self._trim(self._topics.commands, before)

    async def trim_results(self, before: int) -> None:
        await self._trim(self._topics.results, before)

    async def recreate_commands(self) -> None:
        await delete_topic(self._connection, self._topics.commands)
        async with asyncio.timeout(PATIENCE):
            while not await create_topics(self._connection, self._topics, PARTITIONS):
                pass

    async def leave_gap_in_results(self) -> None:
        await (await self._begin(self._topics.results, [b"foreign"])).commit()

    async def close(self) -> None:
        for log in self._opened:
            await log.close()

    async def _begin(self, topic: str, values: Sequence[bytes]) -> Transaction:
        self._transactions += 1
        transactional_id = f"{self._topics.prefix}.agent-{self._transactions}"
        producer = AIOKafkaProducer(**self._connection.options(), transactional_id=transactional_id)
        await producer.start()
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value, b"key", PARTITION)
        return _KafkaTransaction(producer, self._client, TopicPartition(topic, PARTITION))

    async def _trim(self, topic: str, before: int) -> None:
        admin = AIOKafkaAdminClient(**self._connection.options())
        await admin.start()
        try:
            partition = TopicPartition(topic, PARTITION)
            await admin.delete_records({partition: RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()


@asynccontextmanager
async def kafka_world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    servers: Servers = request.getfixturevalue("servers")
    connection = Connection(servers.kafka.bootstrap_servers)
    topics = Topics(request.getfixturevalue("topic_prefix"))
    await create_topics(connection, topics, PARTITIONS)
    world = KafkaWorld(connection, topics)
    try:
        yield world
    finally:
        await world.close()


WORLDS = [
    pytest.param(kafka_world, id="kafka", marks=pytest.mark.servers),
]
