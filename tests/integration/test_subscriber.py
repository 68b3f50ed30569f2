"""The subscriber on a real Kafka: each event at least once, in order per session, nothing committed too early."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.odd_batches import send
from tests.integration.subscribing import (
    GROUP,
    NOW,
    PARTITIONS,
    Results,
    assigned,
    beneath,
    by_session,
    committed,
    drain,
    results,
    subjects,
    subscriber,
    world,
)
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import Deduplicator, Event, KafkaUnavailableError, Subscriber, Topics
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics
from waypost_worker.partition.ports import Fence

__all__ = ["results", "world"]


async def test_an_event_says_all_that_its_result_says(world: Deployment, results: Results) -> None:
    data = b'{ "n" : 1.50, "text":"\\u00fc\\u0000" }'
    await results.created("s", "task_started", data)
    (event,) = await drain(subscriber(world, from_beginning=True), 1)
    assert (event.type, event.session_id, event.subject) == (EventType.CREATED, "s", "s:1")
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


async def test_since_begins_at_the_first_event_from_then_on(world: Deployment, results: Results) -> None:
    # The broker dates results as it takes them, in milliseconds.
    await results.created("s")
    moment = datetime.now(UTC) + timedelta(milliseconds=5)
    await world.until(lambda: datetime.now(UTC) > moment)
    late = [await results.created("s") for _ in range(2)]
    for group in (None, GROUP):
        assert subjects(await drain(subscriber(world, since=moment, group=group), 2)) == late


async def test_a_start_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="contradict"):
        Subscriber("127.0.0.1:1", from_beginning=True, since=datetime.now(UTC))


async def test_filters_look_at_headers_alone(world: Deployment, results: Results) -> None:
    await results.created("a", "started")
    await results.created("b", "done")
    await results.created("a", "done")
    wanted = subscriber(world, from_beginning=True, names=["done"], sessions=["a"], types=["created"])
    (event,) = await drain(wanted, 1)
    assert event.subject == "a:2"
    assert "body" not in vars(event)


async def test_fence_records_and_foreign_records_are_skipped(world: Deployment, results: Results) -> None:
    await results.append(0, results.encoders[0].acquired(1, 0, Fence(1, 0)))
    await world.producer.send_and_wait(world.topics.results, b"not JSON", partition=0)
    await world.producer.send_and_wait(world.topics.results, None, key=b"k", partition=0)
    for number in itertools.count():
        if partition_of(f"session-{number}", PARTITIONS) == 0:
            last = await results.created(f"session-{number}")
            break
    assert subjects(await drain(subscriber(world, from_beginning=True), 1)) == [last]


async def test_a_record_that_the_client_cannot_read_stops_nothing_and_costs_nothing(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(60)
    for partition in range(PARTITIONS):
        await send(world.producer, world.topics.results, [b"odd", b"odder"], odd=[1], partition=partition)
    sent += await results.many(60)
    for group in (None, GROUP):
        found = await drain(subscriber(world, group=group, from_beginning=True), 120)
        assert by_session(subjects(found)) == by_session(sent)


async def test_the_next_member_resumes_where_the_last_one_was_done(
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
    await world.until(lambda: set(subjects(found)) == set(sent))
    await world.until(lambda: all(each._consuming and each._consuming._ready for each in members))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # At least once, and the first time in order.
    assert by_session(list(dict.fromkeys(subjects(found)))) == by_session(sent)
    assert sum(offset or 0 for offset in (await committed(world)).values()) == len(sent)


async def test_a_deduplicator_knows_a_repetition_by_its_id(world: Deployment, results: Results) -> None:
    await results.many(3, sessions=1)
    seen = Deduplicator(size=2)
    first = await drain(subscriber(world, from_beginning=True), 3)
    assert [seen.check_and_add(event) for event in first] == [False, False, False]
    again = await drain(subscriber(world, from_beginning=True), 3)
    # Two are remembered; the oldest is forgotten, and comes as new.
    assert [seen.check_and_add(event) for event in reversed(again)] == [True, True, False]


async def test_a_subscriber_follows_a_live_worker(servers: Servers, database: str, topic_prefix: str) -> None:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as here:
        for partition in range(PARTITIONS):
            here.own(partition)
        for number in range(30):
            await here.create(f"session-{number % 5}", step=number)
        found = await drain(subscriber(here, from_beginning=True), 30)
    steps: dict[str | None, list[int]] = {}
    for event in found:
        steps.setdefault(event.session_id, []).append(
            orjson.loads(event.raw_body)["checkpoint"]["data"]["step"]
        )
    assert steps == {f"session-{n}": list(range(n, 30, 5)) for n in range(5)}


@pytest.mark.parametrize("group", [None, GROUP])
async def test_a_subscriber_waits_for_a_topic_that_is_created_later_and_logs_it(
    servers: Servers, topic_prefix: str, group: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    topics = Topics(topic_prefix)
    bootstrap = servers.endpoints.bootstrap_servers
    events = Subscriber(bootstrap, topic_prefix=topic_prefix, group=group, from_beginning=True)
    taking = asyncio.create_task(anext(aiter(events)))
    async with asyncio.timeout(PATIENCE):
        while f"does not know a topic '{topics.results}'" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await create_topics(Connection(bootstrap), topics, 1)
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            headers = [("ce_id", b"1"), ("ce_type", EventType.CLEARED.wire)]
            await producer.send_and_wait(topics.results, b"{}", headers=headers)
        assert (await taking).id == "1"
    await events.close()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"group": ""}, ValueError, "group"),
        ({"group": 5}, ValueError, "group"),
        ({"names": [1]}, TypeError, "list of strings; 1 is not a string"),
        ({"since": "2026"}, TypeError, "datetime with a time zone"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Subscriber("127.0.0.1:1", **options)


async def test_options_that_the_kafka_client_does_not_take_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="the Kafka client does not accept these options"):
        await Subscriber("127.0.0.1:1", kafka_options={"bogus": 1}).start()


async def test_a_cluster_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(KafkaUnavailableError, match=r"No broker can be reached at 127\.0\.0\.1:1, \[?::1"):
        await Subscriber("127.0.0.1:1,[::1]:1").start()


async def test_a_close_that_is_canceled_leaves_the_group_all_the_same(world: Deployment) -> None:
    before = asyncio.all_tasks()
    events = subscriber(world, group=GROUP)
    await events.start()
    finishing = asyncio.Event()

    async def never() -> None:
        finishing.set()
        await asyncio.Event().wait()

    await assigned(world, events)
    beneath(events).before_revoke = never
    closing = asyncio.create_task(events.close())
    await finishing.wait()
    closing.cancel()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait({closing})
    assert closing.cancelled()
    assert asyncio.all_tasks() == before
