"""The subscriber on a real Kafka: each event at least once, in order per session, nothing committed too early."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tests.harness import Deployment, deployment

from waypost import Deduplicator, Event, Subscriber
from waypost.envelope import Envelope
from waypost.session import Entry
from waypost.topics import partition_of
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
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def results(world: Deployment) -> Results:
    return Results(world)


def subscriber(world: Deployment, **options: Any) -> Subscriber:
    return Subscriber(world.endpoints.bootstrap_servers, prefix=world.topics.prefix, **options)


async def drain(events: Subscriber, count: int, seconds: float = 20) -> list[Event]:
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


async def test_an_event_says_all_that_its_result_says(world: Deployment, results: Results) -> None:
    data = b'{ "n" : 1.50, "text":"\\u00fc\\u0000" }'
    await results.created("s", "task_started", data)
    (event,) = await drain(subscriber(world, from_beginning=True), 1)
    assert (event.type, event.session_id, event.subject) == ("waypost.checkpoint.created", "s", "s:1")
    assert (event.name, event.command_id, event.removed) == ("task_started", "c-0", [])
    assert event.token == (partition_of("s", PARTITIONS), 0)
    assert event.time == datetime.fromtimestamp(NOW / 1e6, UTC)
    assert event.checkpoint is not None
    assert (event.checkpoint.id, event.checkpoint.raw_data) == ("s:1", data)
    assert event.checkpoint.data == {"n": 1.5, "text": "ü\0"}
    assert event.body["command"]["id"] == "c-0"


async def test_events_come_in_order_per_session(world: Deployment, results: Results) -> None:
    sent = await results.many(600)
    found = await drain(subscriber(world, from_beginning=True), 600)
    assert by_session(subjects(found)) == by_session(sent)


async def test_without_a_position_it_begins_at_the_end(world: Deployment, results: Results) -> None:
    await results.many(30)
    for group in (None, GROUP):
        async with subscriber(world, group=group) as events:
            if group:
                await assigned(world, events)
            late = await results.created("s")
            assert subjects(await drain(events, 1)) == [late]


async def assigned(world: Deployment, events: Subscriber) -> None:
    """Wait until a member of a group has its partitions and their positions."""
    consuming = events._consuming
    assert consuming is not None
    await world.until(lambda: consuming._ready)


async def test_since_begins_at_the_first_event_from_then_on(world: Deployment, results: Results) -> None:
    moment = datetime.now(UTC) - timedelta(minutes=30)
    encoder = results.encoders[0]
    for minutes in (-1, 0, 1):
        envelope = Envelope("c", "", "s", NOW, NOW, None, b"")
        record = encoder.created(envelope, 0, Entry(1, "n", NOW, NOW, 0), (b"{}", b"{}"), ())
        at = moment + timedelta(minutes=minutes)
        await results.append(0, record, timestamp_ms=-(-int(at.timestamp() * 1_000_000) // 1000))
    for group in (None, GROUP):
        found = await drain(subscriber(world, since=moment, group=group), 2)
        assert [event.offset for event in found] == [1, 2]


async def test_a_start_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="contradict"):
        Subscriber("127.0.0.1:1", from_beginning=True, since=datetime.now(UTC))


async def test_a_cluster_that_is_away_is_an_error_at_the_start() -> None:
    with pytest.raises(KafkaError):
        await Subscriber("127.0.0.1:1").start()


async def test_filters_look_at_headers_alone(world: Deployment, results: Results) -> None:
    await results.created("a", "started")
    await results.created("b", "done")
    await results.created("a", "done")
    wanted = subscriber(world, from_beginning=True, names=["done"], sessions=["a"], types=["created"])
    (event,) = await drain(wanted, 1)
    assert event.subject == "a:2"
    assert "body" not in vars(event)


async def test_fence_records_and_foreign_records_are_skipped(world: Deployment, results: Results) -> None:
    await results.append(0, results.encoders[0].acquired(1, 0))
    await world.producer.send_and_wait(world.topics.results, b"not JSON", partition=0)
    await world.producer.send_and_wait(world.topics.results, None, key=b"k", partition=0)
    for number in itertools.count():
        if partition_of(f"session-{number}", PARTITIONS) == 0:
            last = await results.created(f"session-{number}")
            break
    assert subjects(await drain(subscriber(world, from_beginning=True), 1)) == [last]


async def test_the_next_member_goes_on_where_the_last_one_was_done(
    world: Deployment, results: Results
) -> None:
    first = await results.many(50)
    found = await drain(subscriber(world, group=GROUP, from_beginning=True), 50)
    second = await results.many(20)
    found += await drain(subscriber(world, group=GROUP, from_beginning=True), 20)
    assert by_session(subjects(found)) == by_session(first + second)


async def test_an_event_that_was_not_finished_comes_again(world: Deployment, results: Results) -> None:
    sent = await results.many(10, sessions=1)
    events = subscriber(world, group=GROUP, from_beginning=True)
    seen = []
    async for event in events:
        seen.append(event.subject)
        if len(seen) == 4:
            break  # the fourth was taken, but nobody asked for the fifth
    assert seen == sent[:4]
    await events.close()
    assert max(offset or 0 for offset in (await committed(world)).values()) == 3
    again = await drain(subscriber(world, group=GROUP, from_beginning=True), 7)
    assert subjects(again) == sent[3:]


async def test_within_one_context_an_iteration_can_be_taken_up_again(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(10, sessions=1)
    for group in (None, GROUP):
        async with subscriber(world, group=group, from_beginning=True) as events:
            async for event in events:
                if event.subject == sent[3]:
                    break
            found = await drain(events, 7)
        assert subjects(found) == sent[3:]


async def test_positions_exist_from_the_start_so_that_a_crash_loses_nothing(
    world: Deployment, results: Results
) -> None:
    await results.many(9)
    async with subscriber(world, group=GROUP) as events:
        await assigned(world, events)
        positions = await committed(world)
        # No close: what a crash leaves behind is what is committed now.
        assert sum(offset or 0 for offset in positions.values()) == 9
    late = await results.created("s")
    assert subjects(await drain(subscriber(world, group=GROUP), 1)) == [late]


async def test_positions_are_committed_while_events_flow(world: Deployment, results: Results) -> None:
    await results.many(30)

    async def all_committed() -> bool:
        return sum(offset or 0 for offset in (await committed(world)).values()) == 30

    async with subscriber(world, group=GROUP, from_beginning=True) as events:
        task = asyncio.create_task(count(events))
        await world.until(all_committed)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def count(events: Subscriber) -> None:
    async for _ in events:
        pass


async def test_members_share_the_partitions_and_nothing_is_lost_when_one_joins(
    world: Deployment, results: Results
) -> None:
    found: list[Event] = []
    members = [subscriber(world, group=GROUP, from_beginning=True) for _ in range(2)]

    async def work(events: Subscriber) -> None:
        async for event in events:
            found.append(event)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(members[0]))]
    sent = await results.many(300)
    await world.until(lambda: len(found) >= 100)
    tasks.append(asyncio.create_task(work(members[1])))
    for _ in range(10):
        sent += await results.many(100)
    await world.until(lambda: set(subjects(found)) == set(sent), 40)
    await world.until(lambda: all(each._consuming and each._consuming._ready for each in members))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # At least once, and the first time in order.
    assert by_session(list(dict.fromkeys(subjects(found)))) == by_session(sent)
    assert sum(offset or 0 for offset in (await committed(world)).values()) == len(sent)


async def test_a_handler_gets_each_session_in_order_and_many_sessions_at_once(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(200, sessions=20)
    found: list[Event] = []
    running: Counter[str] = Counter()
    most = 0

    async def handler(event: Event) -> None:
        nonlocal most
        running[event.session_id or ""] += 1
        most = max(most, running.total())
        assert running[event.session_id or ""] == 1
        await asyncio.sleep(0.001)
        found.append(event)
        running[event.session_id or ""] -= 1
        if len(found) == 200:
            finished.set()

    finished = asyncio.Event()
    events = subscriber(world, group=GROUP, from_beginning=True)
    task = asyncio.create_task(events.run(handler, concurrency=8))
    async with asyncio.timeout(20):
        await finished.wait()
    await events.close()
    await task
    assert by_session(subjects(found)) == by_session(sent)
    assert 2 <= most <= 8
    assert sum(offset or 0 for offset in (await committed(world)).values()) == 200


async def test_a_handler_that_fails_is_tried_again_and_then_the_callback_gets_the_event(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.handling._FIRST_WAIT", 0.001)
    await results.many(3, sessions=1)
    tries: Counter[str] = Counter()
    failed: list[tuple[str | None, str]] = []

    async def handler(event: Event) -> None:
        tries[event.subject or ""] += 1
        if event.subject == "session-0:2" or tries[event.subject or ""] == 1:
            raise RuntimeError("not now")
        if event.subject == "session-0:3":
            finished.set()

    async def on_failure(event: Event, error: Exception) -> None:
        failed.append((event.subject, str(error)))

    finished = asyncio.Event()
    events = subscriber(world, group=GROUP, from_beginning=True)
    task = asyncio.create_task(events.run(handler, retries=3, on_failure=on_failure))
    async with asyncio.timeout(20):
        await finished.wait()
    await events.close()
    await task
    assert tries == {"session-0:1": 2, "session-0:2": 4, "session-0:3": 2}
    assert failed == [("session-0:2", "not now")]


async def test_without_a_callback_the_error_ends_the_run_before_its_event(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(10, sessions=1)

    async def handler(event: Event) -> None:
        if event.subject == sent[4]:
            raise RuntimeError("for good")

    with pytest.raises(RuntimeError, match="for good"):
        await subscriber(world, group=GROUP, from_beginning=True).run(handler, retries=0)
    again = await drain(subscriber(world, group=GROUP), 6)
    assert subjects(again) == sent[4:]


async def test_a_rebalance_waits_for_the_handlers_under_way(world: Deployment, results: Results) -> None:
    sent = await results.many(30, sessions=10)
    handled: Counter[str] = Counter()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(event: Event) -> None:
        entered.set()
        await leave.wait()
        handled[event.subject or ""] += 1

    async def quick(event: Event) -> None:
        handled[event.subject or ""] += 1

    first = subscriber(world, group=GROUP, from_beginning=True)
    second = subscriber(world, group=GROUP, from_beginning=True)
    running = [asyncio.create_task(first.run(slow, concurrency=3))]
    async with asyncio.timeout(20):
        await entered.wait()
    consuming = first._consuming
    assert consuming is not None
    finish = consuming.before_revoke
    assert finish is not None
    revoking = asyncio.Event()

    async def told() -> None:
        revoking.set()
        await finish()

    consuming.before_revoke = told
    running.append(asyncio.create_task(second.run(quick)))
    async with asyncio.timeout(20):
        await revoking.wait()
    leave.set()
    await world.until(lambda: handled.total() >= len(sent))
    await first.close()
    await second.close()
    await asyncio.gather(*running)
    # Everything under way was finished and committed before the partitions went, so nothing came twice.
    assert handled == dict.fromkeys(sent, 1)


async def test_cancelling_a_run_leaves_what_was_not_done(world: Deployment, results: Results) -> None:
    sent = await results.many(5, sessions=1)
    entered = asyncio.Event()

    async def handler(event: Event) -> None:
        if event.subject == sent[2]:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(subscriber(world, group=GROUP, from_beginning=True).run(handler))
    async with asyncio.timeout(20):
        await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert subjects(await drain(subscriber(world, group=GROUP), 3)) == sent[2:]


async def test_a_deduplicator_knows_a_repetition_by_its_id(world: Deployment, results: Results) -> None:
    await results.many(3, sessions=1)
    seen = Deduplicator(size=2)
    first = await drain(subscriber(world, from_beginning=True), 3)
    assert [seen.seen(event) for event in first] == [False, False, False]
    again = await drain(subscriber(world, from_beginning=True), 3)
    # Two are remembered; the oldest is forgotten, and comes as new.
    assert [seen.seen(event) for event in reversed(again)] == [True, True, False]


async def test_a_subscriber_follows_a_live_worker(world: Deployment) -> None:
    for partition in range(PARTITIONS):
        world.own(partition)
    for number in range(30):
        await world.create(f"session-{number % 5}", step=number)
    found = await drain(subscriber(world, from_beginning=True), 30)
    steps: dict[str | None, list[int]] = {}
    for event in found:
        steps.setdefault(event.session_id, []).append(
            orjson.loads(event.raw_body)["checkpoint"]["data"]["step"]
        )
    assert steps == {f"session-{n}": list(range(n, 30, 5)) for n in range(5)}
