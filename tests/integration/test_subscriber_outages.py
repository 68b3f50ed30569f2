"""Subscribers while the broker is frozen or killed, or one of them is: nothing is missed, order is kept."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.subscribing import (
    GROUP,
    PARTITIONS,
    Results,
    assigned,
    beneath,
    by_session,
    committed,
    subjects,
    subscriber,
)
from tests.support.deployment import Deployment, deployment
from tests.support.processes import freeze
from tests.support.servers import SOON_BACK, ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost import Event, Subscriber
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints

MEMBER = Path(__file__).with_name("subscriber_process.py")


@pytest.fixture(scope="module")
def kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(server_directory("kafka"), ClusterOptions(properties=SOON_BACK))) as made:
        yield made


@pytest.fixture
async def world(
    kafka: EmbeddedKafka, untouched_database: str, topic_prefix: str
) -> AsyncIterator[Deployment]:
    endpoints = Endpoints(bootstrap_servers=kafka.bootstrap_servers, postgres_dsn=untouched_database)
    async with deployment(endpoints, untouched_database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def results(world: Deployment) -> Results:
    return Results(world)


class Collecting:
    """A subscriber whose events are collected in a task."""

    def __init__(self, events: Subscriber) -> None:
        self.events = events
        self.found: list[Event] = []
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for event in self.events:
            self.found.append(event)

    def first_times(self) -> dict[str, list[str]]:
        return by_session(list(dict.fromkeys(subjects(self.found))))

    async def close(self) -> None:
        await self.events.close()
        await self.task


async def test_a_broker_that_is_killed_and_comes_back_costs_no_event(
    world: Deployment, results: Results, kafka: EmbeddedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    both = [
        Collecting(subscriber(world, group=group, from_beginning=True, stuck_after=5.0))
        for group in (None, GROUP)
    ]
    sent = await results.many(60)
    await world.until(lambda: all(len(each.found) >= 60 for each in both))
    await asyncio.to_thread(kafka.kill)
    publishing = asyncio.create_task(results.many(60))
    await asyncio.to_thread(kafka.restart)
    sent += await publishing
    for each in both:
        await world.until(lambda each=each: each.first_times() == by_session(sent), PATIENCE)
        await each.close()
    assert sum(offset or 0 for offset in (await committed(world)).values()) == len(sent)
    # The producers of this test are not Waypost's, and log as they do everywhere.
    assert [record for record in caplog.records if record.name.startswith("aiokafka.consumer")] == []
    assert caplog.text.count("A Kafka broker is unreachable; results may come late") == len(both)


async def test_a_frozen_broker_is_not_taken_for_a_stuck_consumer(
    world: Deployment, results: Results, kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.watchdog._PROBE_SECONDS", 1.0)
    collecting = Collecting(subscriber(world, from_beginning=True, stuck_after=0.2))
    sent = await results.many(30)
    await world.until(lambda: len(collecting.found) == 30)
    watchdog = beneath(collecting.events)._watchdog
    looked: list[object] = []
    ends = watchdog._ends

    async def counted(partitions: object) -> object:
        looked.append(await ends(partitions))  # type: ignore[arg-type]
        return looked[-1]

    watchdog._ends = counted  # type: ignore[assignment]
    await asyncio.to_thread(freeze, kafka)
    try:
        await world.until(lambda: looked.count(None) >= 2)
    finally:
        await asyncio.to_thread(kafka.resume)
    assert collecting.events.restarts == 0
    sent += await results.many(30)
    await world.until(lambda: collecting.first_times() == by_session(sent), PATIENCE)
    await collecting.close()


async def test_closing_while_the_broker_is_frozen_takes_seconds_and_leaves_nothing(
    world: Deployment, results: Results, kafka: EmbeddedKafka
) -> None:
    before = asyncio.all_tasks()
    members = [Collecting(subscriber(world, group=group, from_beginning=True)) for group in (None, GROUP)]
    await results.many(30)
    await world.until(lambda: all(len(each.found) == 30 for each in members))
    await asyncio.to_thread(freeze, kafka)
    try:
        async with asyncio.timeout(20):  # half the time limit of one request
            for each in members:
                await each.close()
    finally:
        await asyncio.to_thread(kafka.resume)
    assert not {task for task in asyncio.all_tasks() - before if "waypost" in repr(task)}


async def test_a_run_that_waits_for_a_dead_letter_ends_in_seconds_while_the_broker_is_frozen(
    world: Deployment, results: Results, kafka: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._FINISH_SECONDS", 0.5)
    before = asyncio.all_tasks()
    events = subscriber(world, from_beginning=True)
    failing = asyncio.Event()

    async def handler(_: Event) -> None:
        await asyncio.to_thread(freeze, kafka)
        failing.set()
        raise RuntimeError("for good")

    await results.many(1)
    running = asyncio.create_task(events.run(handler, retries=0, dead_letters=world.topics.commands))
    try:
        async with asyncio.timeout(PATIENCE):
            await failing.wait()
        async with asyncio.timeout(20):  # half the time limit of one request
            await events.close()
            await running
    finally:
        await asyncio.to_thread(kafka.resume)
    assert not {task for task in asyncio.all_tasks() - before if "kafka" in repr(task)}


async def test_a_member_that_is_killed_is_replaced_by_another_from_its_last_commit(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(90)
    command = [sys.executable, MEMBER, world.endpoints.bootstrap_servers, world.topics.prefix, GROUP]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    handled: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while len(handled) < 30:
                handled.append((await process.stdout.readline()).decode().strip())
    finally:
        process.kill()
        handled += (await process.stdout.read()).decode().split()
        await process.wait()
    heir = Collecting(subscriber(world, group=GROUP, kafka_options={"session_timeout_ms": 3000}))
    sent += await results.many(30)
    await world.until(lambda: set(handled) | set(subjects(heir.found)) == set(sent), PATIENCE)
    # What came twice came again in order, from the place that was committed.
    assert by_session(list(dict.fromkeys(handled + subjects(heir.found)))) == by_session(sent)
    await assigned(world, heir.events)
    await heir.close()
