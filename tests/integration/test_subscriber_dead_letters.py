"""Events that a handler could not handle, in a topic of their own."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.integration.subscribing import (
    GROUP,
    Results,
    committed,
    drain,
    results,
    subjects,
    subscriber,
    world,
)
from tests.support.deployment import Deployment
from tests.support.timeouts import PATIENCE

from waypost import DeadLetterError, Event

__all__ = ["results", "world"]


async def create(world: Deployment, topic: str, **settings: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 2, 1, topic_configs=settings)])
    finally:
        await admin.close()


async def delete(world: Deployment, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=world.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def read(world: Deployment, topic: str, count: int) -> list[Any]:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=world.endpoints.bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(PATIENCE):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


async def test_what_keeps_failing_goes_to_the_dead_letter_topic_with_its_reason(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._FIRST_WAIT", 0.001)
    topic = f"{world.topics.prefix}.dead"
    await create(world, topic)
    sent = await results.many(6, sessions=1)
    seen: list[Event] = []
    told: list[tuple[str | None, str]] = []

    async def handler(event: Event) -> None:
        seen.append(event)
        if event.subject in sent[1:3]:
            raise RuntimeError(f"no {event.subject} \udcff")
        if event.subject == sent[-1]:
            finished.set()

    async def on_failure(event: Event, error: Exception) -> None:
        told.append((event.subject, str(error)))

    finished = asyncio.Event()
    began = datetime.now(UTC)
    events = subscriber(world, group=GROUP, from_beginning=True)
    task = asyncio.create_task(events.run(handler, retries=2, on_failure=on_failure, dead_letters=topic))
    async with asyncio.timeout(PATIENCE):
        await finished.wait()
    await events.close()
    await task
    assert [subject for subject, _ in told] == sent[1:3]
    assert sum(offset or 0 for offset in (await committed(world)).values()) == 6
    first, second = await read(world, topic, 2)
    event = next(event for event in seen if event.subject == sent[1])
    assert (first.key, first.value) == (event.key, event.raw_body)
    assert first.headers[: len(event.headers)] == event.headers
    added = {name: value.decode() for name, value in first.headers[len(event.headers) :]}
    at = datetime.fromisoformat(added.pop("deadletter-time"))
    assert began <= at <= datetime.now(UTC)
    assert added == {
        "deadletter-error": "RuntimeError",
        "deadletter-message": f"no {sent[1]} \\udcff",
        "deadletter-attempts": "3",
        "deadletter-group": GROUP,
        "deadletter-topic": world.topics.results,
        "deadletter-partition": str(event.partition),
        "deadletter-offset": str(event.offset),
    }
    assert dict(second.headers)["deadletter-offset"] == str(event.offset + 1).encode()


async def test_a_dead_letter_that_is_not_taken_ends_the_run_before_its_event(
    world: Deployment, results: Results
) -> None:
    topic = f"{world.topics.prefix}.dead"
    await create(world, topic, **{"max.message.bytes": "100"})
    sent = await results.many(5, sessions=1)

    async def handler(event: Event) -> None:
        if event.subject == sent[2]:
            raise RuntimeError("for good")

    with pytest.raises(DeadLetterError, match="The position stays before it") as caught:
        await subscriber(world, group=GROUP, from_beginning=True).run(handler, retries=0, dead_letters=topic)
    assert str(caught.value.__cause__) == "for good"
    assert subjects(await drain(subscriber(world, group=GROUP), 3)) == sent[2:]


async def test_a_dead_letter_topic_that_is_deleted_ends_the_run_before_its_event(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"{world.topics.prefix}.dead"
    await create(world, topic)
    sent = await results.many(3, sessions=1)

    async def handler(event: Event) -> None:
        if event.subject == sent[1]:
            monkeypatch.setattr("waypost.subscriber.dead_letters._TOPIC_SECONDS", 0.5)
            await delete(world, topic)
            raise RuntimeError("for good")

    with pytest.raises(DeadLetterError, match=r"UnknownTopicOrPartitionError.*The position stays before it"):
        await subscriber(world, group=GROUP, from_beginning=True).run(handler, retries=0, dead_letters=topic)
    assert subjects(await drain(subscriber(world, group=GROUP), 2)) == sent[1:]


async def test_a_missing_dead_letter_topic_is_reported_before_an_event_is_taken(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dead_letters._TOPIC_SECONDS", 0.5)
    sent = await results.many(3, sessions=1)

    async def handler(event: Event) -> None:
        raise AssertionError

    with pytest.raises(DeadLetterError, match=r"can't be used.*create it.*No event was taken"):
        await subscriber(world, group=GROUP, from_beginning=True).run(handler, dead_letters="no.such.topic")
    assert subjects(await drain(subscriber(world, group=GROUP, from_beginning=True), 3)) == sent
