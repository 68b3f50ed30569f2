"""Whatever a broker accepts on the results topic, subscribers and waiting publishers read what lies behind it."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from tests.integration.odd_batches import send
from tests.integration.subscribing import (
    GROUP,
    PARTITIONS,
    Results,
    beneath,
    by_session,
    drain,
    results,
    subjects,
    subscriber,
    world,
)
from tests.integration.test_admission import batches
from tests.support.batch_variants import variants
from tests.support.deployment import Deployment
from tests.support.raw_kafka import RawKafka
from tests.support.timeouts import PATIENCE

from waypost.kafka import bounded_fetch
from waypost.kafka.topic_reader import TopicReader
from waypost.publisher.waiter import ResultWaiter
from waypost.subscriber.watchdog import FetchProgress
from waypost_worker.devserver import Servers

__all__ = ["results", "world"]


@pytest.fixture
def kafka(servers: Servers) -> Iterator[RawKafka]:
    with RawKafka(servers.endpoints.bootstrap_servers) as connection:
        yield connection


async def hostile(kafka: RawKafka, world: Deployment, some: list[bytes]) -> int:
    """Append batches to every partition of the results topic; how many of them the broker accepted."""
    accepted = 0
    for raw in some:
        for partition in range(PARTITIONS):
            answer = await asyncio.to_thread(kafka.produce, world.topics.results, partition, raw)
            accepted += answer.error == 0
    return accepted


async def test_subscribers_read_what_lies_between_hostile_batches(
    world: Deployment, results: Results, kafka: RawKafka
) -> None:
    sent = await results.many(30)
    listed = batches()
    half = len(listed) // 2
    accepted = await hostile(kafka, world, listed[:half])
    sent += await results.many(30)
    accepted += await hostile(kafka, world, listed[half:])
    assert accepted > 100
    sent += await results.many(30)
    for group in (None, GROUP):
        for isolation in ("read_uncommitted", "read_committed"):
            options = {"isolation_level": isolation}
            named = None if group is None else f"{group}-{isolation}"
            reading = subscriber(world, options, group=named, from_beginning=True)
            found = [one for one in await drain(reading, 90) if one.id]
            assert by_session(subjects(found)) == by_session(sent)


async def test_publishers_find_results_behind_hostile_batches(
    world: Deployment, results: Results, kafka: RawKafka
) -> None:
    waiter = ResultWaiter(world.topics, {"bootstrap_servers": world.endpoints.bootstrap_servers})
    listed = batches()
    partition, session = 0, world.sessions(0, 1)[0]
    try:
        for offset in range(3):
            await hostile(kafka, world, listed[offset::3])
            landing: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
            landing.set_result((partition, offset))
            waiting = asyncio.create_task(waiter.wait(f"c-{offset}", session, landing))
            await results.created(session)
            async with asyncio.timeout(PATIENCE):
                assert (await waiting).token == (partition, offset)
    finally:
        await waiter.stop()


async def test_records_that_look_like_results_do_not_end_the_reading(
    world: Deployment, results: Results
) -> None:
    session = world.sessions(0, 1)[0]
    waiter = ResultWaiter(world.topics, {"bootstrap_servers": world.endpoints.bootstrap_servers})
    bodies = (
        b'{"command":{"id":["c-0"],"offset":0}}',
        b'{"command":{"id":"c-0","offset":"0"}}',
        b'{"command":{"id":"c-0","offset":null}}',
        b'{"command":"idoffset"}',
        b'{"command":{"id":"c-0","offset":0},"removed_ranges":[[0,1e9]]}',
        b'{"command":{"id":"c-0","offset":0}}',  # of a type that nobody can tell
        b"null",
        None,
    )
    try:
        for body in bodies:
            for headers in ([], [("ce_type", None)]):
                await world.producer.send_and_wait(
                    world.topics.results, body, key=session.encode(), partition=0, headers=headers
                )
        landing: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        landing.set_result((0, 0))
        waiting = asyncio.create_task(waiter.wait("c-0", session, landing))
        await results.created(session)
        async with asyncio.timeout(PATIENCE):
            assert (await waiting).checkpoint_id == f"{session}:1"
    finally:
        await waiter.stop()
    value = ("ce_type", b"waypost.checkpoint.created")
    await world.producer.send_and_wait(world.topics.results, None, key=b"k", partition=0, headers=[value])
    found = await drain(subscriber(world, from_beginning=True), 1)
    assert subjects(found) == [f"{session}:1"]


async def test_a_log_that_ends_with_what_nobody_can_read_makes_no_consumer_look_stuck(
    world: Deployment, results: Results, kafka: RawKafka
) -> None:
    sent = await results.many(10)
    unreadable = next(one.raw for one in variants() if one.accepted and one.answer == "undecodable")
    assert await hostile(kafka, world, [unreadable]) == PARTITIONS
    events = subscriber(world, from_beginning=True)
    found: list[str] = []

    async def collect() -> None:
        async for event in events:
            found.append(event.subject or "")

    task = asyncio.create_task(collect())
    try:
        await world.until(lambda: len(found) == 10)
        assert by_session(found) == by_session(sent)
        watchdog = beneath(events)._watchdog
        partitions = [TopicPartition(world.topics.results, number) for number in range(PARTITIONS)]
        ends = await watchdog._ends(partitions)
        assert ends is not None
        progress = FetchProgress[TopicPartition](1)
        progress.begin(dict.fromkeys(partitions, 0))
        progress.stuck(ends)
        assert progress.stuck(ends), "a consumer that passed over nothing is stuck"

        async def is_calm() -> bool:
            assert events.restarts == 0  # a new consumer has no positions, so it would never look stuck
            beneath(events)._progress.stuck(ends)
            return beneath(events)._progress.stuck(ends) == {}

        await world.until(is_calm)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def reading(world: Deployment, **options: object) -> AsyncIterator[TopicReader]:
    reader = TopicReader(
        world.topics.results, {"bootstrap_servers": world.endpoints.bootstrap_servers, **options}
    )
    await reader.start()
    try:
        reader.seek(TopicPartition(world.topics.results, 0), 0)
        yield reader
    finally:
        await reader.stop()


async def taken(reader: TopicReader, count: int) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            for records in (await reader.take(0.2, 3)).values():
                found += records
    return found


async def taken_by_aiokafka(consumer: AIOKafkaConsumer, count: int) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
    return found


async def test_records_are_those_that_aiokafka_gives(world: Deployment, servers: Servers) -> None:
    """Also of compressed batches and of transactions, with the fields that applications may look at."""
    topic = world.topics.results
    partition = TopicPartition(topic, 0)
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        producer = AIOKafkaProducer(
            bootstrap_servers=servers.endpoints.bootstrap_servers,
            transactional_id=f"{topic}.{codec}",
            compression_type=codec,
        )
        await producer.start()
        try:
            for abort in (False, True, False):
                await producer.begin_transaction()
                for number in range(4):
                    await producer.send(
                        topic, b"v%d" % number, b"k", partition=0, headers=[("a", b"1"), ("b", b"")]
                    )
                await producer.send(topic, None, b"k", partition=0)
                await (producer.abort_transaction() if abort else producer.commit_transaction())
        finally:
            await producer.stop()
    for isolation, count in (("read_uncommitted", 75), ("read_committed", 50)):
        plain = AIOKafkaConsumer(
            bootstrap_servers=servers.endpoints.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level=isolation,
        )
        await plain.start()
        try:
            plain.assign([partition])
            expected = await taken_by_aiokafka(plain, count)
        finally:
            await plain.stop()
        async with reading(world, isolation_level=isolation) as reader:
            found = await taken(reader, count)
            assert [(one, one.headers) for one in found] == [(one, one.headers) for one in expected]
            end = (await reader.end_offsets([partition]))[partition]

            async with asyncio.timeout(PATIENCE):
                while reader.position(partition) < end:
                    await reader.take(0.05)
            reader.seek(partition, found[7].offset)
            assert (await taken(reader, 1))[0].offset == found[7].offset


async def test_what_one_fetch_gives_is_bounded(
    world: Deployment, kafka: RawKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left over is fetched again, and nothing is lost or repeated."""
    monkeypatch.setattr(bounded_fetch, "_MOST_RECORDS", 5)
    for _ in range(4):
        await send(world.producer, world.topics.results, [b"%d" % number for number in range(20)], odd=[3])
    raw = await asyncio.to_thread(kafka.fetch, world.topics.results, 0, 0)
    fetched = bounded_fetch.Fetched(TopicPartition(world.topics.results, 0), 0, raw, (), -1)
    decoded = await bounded_fetch.decode_fetched(fetched, 0, committed=False)
    assert [one.offset for one in decoded.records] == list(range(20))  # a batch, which is read at once
    assert decoded.behind == 20
    async with reading(world) as reader:
        assert [one.offset for one in await taken(reader, 80)] == list(range(80))
    monkeypatch.setattr(bounded_fetch, "_MOST_SECONDS", 0.0)
    async with reading(world) as reader:
        assert [one.offset for one in await taken(reader, 80)] == list(range(80))


async def test_bombs_are_not_unpacked(world: Deployment, kafka: RawKafka) -> None:
    bombs = [variant.raw for variant in variants() if variant.bomb and variant.accepted]
    assert bombs
    for raw in bombs:
        await asyncio.to_thread(kafka.produce, world.topics.results, 0, raw)
    await send(world.producer, world.topics.results, [b"behind"], odd=[])
    tracemalloc.start()
    try:
        async with reading(world) as reader:
            while (await taken(reader, 1))[-1].value != b"behind":
                pass
        assert tracemalloc.get_traced_memory()[1] < 200 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_an_unforeseen_error_comes_to_the_application(
    world: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(world.producer, world.topics.results, [b"1"], odd=[])

    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(bounded_fetch, "decode_batches", broken)
        async with reading(world) as reader:
            with pytest.raises(ZeroDivisionError):
                await taken(reader, 1)
            patched.undo()
            assert (await taken(reader, 1))[0].value == b"1"
