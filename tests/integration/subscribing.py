"""What tests of subscribers share: a writer of results as a worker makes them, and ways to take events."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import Event, Subscriber
from waypost.model.index import Entry
from waypost.subscriber.consumer import ResultConsumer
from waypost.wire.envelope import Envelope
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers
from waypost_worker.partition.encode import ResultEncoder

PARTITIONS = 3
GROUP = "billing"
NOW = 1_795_508_699_123_456


class Results:
    """Writes results as a worker would, command after command."""

    def __init__(self, world: Deployment) -> None:
        self.world = world
        self.encoders = [ResultEncoder(world.topics.results, number) for number in range(PARTITIONS)]
        self.offsets = Counter[int]()
        self.numbers = Counter[str]()

    async def created(self, session: str, name: str = "n", data: bytes = b"{}") -> str:
        """One created event; the checkpoint's id."""
        partition = partition_of(session, PARTITIONS)
        self.numbers[session] += 1
        checkpoint_id = f"{session}:{self.numbers[session]}"
        envelope = Envelope(f"c-{self.offsets[partition]}", "", session, NOW, NOW, None, b"")
        entry = Entry(self.numbers[session], name, NOW, NOW, self.offsets[partition])
        record = self.encoders[partition].created(envelope, self.offsets[partition], entry, (data, b"{}"), ())
        self.offsets[partition] += 1
        await self.append(partition, record)
        return checkpoint_id

    async def append(self, partition: int, record: Any, **more: Any) -> None:
        await self.world.producer.send_and_wait(
            self.world.topics.results,
            record.value,
            key=record.key,
            headers=list(record.headers),
            partition=partition,
            **more,
        )

    async def many(self, count: int, sessions: int = 10) -> list[str]:
        """So many created events, over so many sessions; their checkpoint ids."""
        return list(
            await asyncio.gather(*(self.created(f"session-{number % sessions}") for number in range(count)))
        )


@pytest.fixture
async def world(servers: Servers, untouched_database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, untouched_database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def results(world: Deployment) -> Results:
    return Results(world)


def subscriber(world: Deployment, kafka_options: dict[str, Any] | None = None, **more: Any) -> Subscriber:
    # A member learns about a rebalance from the answer to a heartbeat, which it sends every 3 s by default.
    options = {"heartbeat_interval_ms": 300, **(kafka_options or {})}
    return Subscriber(
        world.endpoints.bootstrap_servers, topic_prefix=world.topics.prefix, kafka_options=options, **more
    )


async def drain(events: Subscriber, count: int, seconds: float = PATIENCE) -> list[Event]:
    """At least so many events, all of them done with."""
    found: list[Event] = []
    enough = asyncio.Event()

    async def collect() -> None:
        async for event in events:
            found.append(event)
            if len(found) >= count:
                enough.set()

    task = asyncio.create_task(collect())
    waiting = asyncio.create_task(enough.wait())
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome
    return found


async def committed(world: Deployment, group: str = GROUP) -> dict[int, int | None]:
    """The group's position by partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=world.endpoints.bootstrap_servers, group_id=group)
    await consumer.start()
    try:
        return {
            number: await consumer.committed(TopicPartition(world.topics.results, number))
            for number in range(PARTITIONS)
        }
    finally:
        await consumer.stop()


def subjects(events: list[Event]) -> list[str]:
    return [event.subject or "" for event in events]


def by_session(ids: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for checkpoint_id in ids:
        found.setdefault(checkpoint_id.rpartition(":")[0], []).append(checkpoint_id)
    return found


async def assigned(world: Deployment, events: Subscriber) -> None:
    """Wait until a member of a group has its partitions and their positions."""
    consuming = beneath(events)
    await world.until(lambda: consuming._ready)


def beneath(events: Subscriber) -> ResultConsumer:
    """The consumer beneath a subscriber that was started."""
    assert events._consuming is not None
    return events._consuming
