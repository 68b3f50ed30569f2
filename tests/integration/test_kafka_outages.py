"""The Kafka side while the broker is frozen, killed or restarted: what is unknown is said, nothing is doubled."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from tests.support.processes import freeze
from tests.support.servers import SOON_BACK, ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost.wire.envelope import KafkaRecord
from waypost.wire.topics import Topics
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import create_topics
from waypost_worker.partition.ports import OwnerError, ResultRecord, ResultsLog, UnavailableError

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka(server_directory("kafka"), ClusterOptions(properties=SOON_BACK))) as made:
        yield made


@pytest.fixture
def connection(kafka: EmbeddedKafka) -> Connection:
    return Connection(kafka.bootstrap_servers, request_timeout=1.0)


@pytest.fixture
async def topics(kafka: EmbeddedKafka, topic_prefix: str) -> Topics:
    topics = Topics(topic_prefix)
    await create_topics(Connection(kafka.bootstrap_servers), topics, 1)
    return topics


@asynccontextmanager
async def claimed(connection: Connection, topics: Topics) -> AsyncIterator[ResultsLog]:
    log = KafkaResultsLog(ClusterClient(connection), topics, 0)
    try:
        await log.claim()
        yield log
    finally:
        await log.close()


def record(text: str) -> ResultRecord:
    return ResultRecord(b"key", text.encode(), [])


async def texts(connection: Connection, topics: Topics) -> list[str]:
    log = KafkaResultsLog(ClusterClient(connection), topics, 0)
    try:
        first, end = await log.bounds()
        return [found.value.decode() async for piece in log.read(first, end) for found in piece]
    finally:
        await log.close()


async def publish(kafka: EmbeddedKafka, topic: str, first: int, count: int) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=True
    ) as producer:
        for n in range(first, first + count):
            await (await producer.send(topic, b"%d" % n, partition=0))


async def test_an_append_to_a_killed_broker_ends_in_time_and_is_never_retried_later(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    before = asyncio.all_tasks()
    async with claimed(connection, topics) as owner:
        await owner.append([record("before")])
        kafka.kill()
        try:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(UnavailableError):
                    await owner.append([record("lost")])
                with pytest.raises(UnavailableError):
                    await owner.append([record("after an error")])
                await owner.close()
            # Nothing is left that could send it once the broker is back.
            assert asyncio.all_tasks() == before
        finally:
            await asyncio.to_thread(kafka.restart)
        async with claimed(connection, topics) as successor:
            await successor.append([record("fence")])
    assert await texts(connection, topics) == ["before", "fence"]


async def test_a_canceled_append_is_not_retried_either(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    async with claimed(connection, topics) as owner:
        await owner.append([record("before")])
        kafka.kill()
        try:
            append = asyncio.create_task(owner.append([record("cancelled")]))
            await asyncio.wait({append}, timeout=0.3)
            append.cancel()
            await asyncio.gather(append, return_exceptions=True)
        finally:
            await asyncio.to_thread(kafka.restart)
        async with claimed(connection, topics) as successor:
            await successor.append([record("fence")])
    assert await texts(connection, topics) == ["before", "fence"]


async def test_an_append_to_a_frozen_broker_has_an_unknown_outcome_and_stays_before_the_fence(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    async with claimed(connection, topics) as owner:
        await owner.append([record("before")])
        freeze(kafka)
        try:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(UnavailableError):
                    await owner.append([record("unknown")])
                await owner.close()
        finally:
            kafka.resume()
    async with claimed(connection, topics) as successor:
        await successor.append([record("fence")])
    found = await texts(connection, topics)
    assert [text for text in found if text != "unknown"] == ["before", "fence"]
    assert found[-1] == "fence"
    assert found.count("unknown") <= 1


async def test_every_question_to_a_frozen_broker_ends_in_time(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    log = KafkaCommandLog(ClusterClient(connection), topics.commands, 0)
    await log.bounds()
    freeze(kafka)
    try:
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(
                log.bounds(),
                KafkaCommandLog(ClusterClient(connection), topics.commands, 0).bounds(),
                KafkaCommandLog(ClusterClient(connection), topics.commands, 0).read(0, 1),
                KafkaResultsLog(ClusterClient(connection), topics, 0).claim(),
                KafkaResultsLog(ClusterClient(connection), topics, 0).bounds(),
                Membership(connection, topics.commands, topics.prefix).start(),
                create_topics(connection, topics, 1),
                return_exceptions=True,
            )
            assert all(isinstance(answer, UnavailableError) for answer in answers), answers
            await log.close()
    finally:
        kafka.resume()


async def test_fetching_continues_after_a_restart_without_loss_or_repetition(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    log = KafkaCommandLog(ClusterClient(connection), topics.commands, 0)
    await publish(kafka, topics.commands, 0, 100)
    await log.seek(0)
    found: list[KafkaRecord] = []

    async def fetch_until(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                try:
                    found.extend(await log.fetch(30))
                except UnavailableError:  # as an owner does: on from where it stands
                    await log.seek(found[-1].offset + 1)

    await fetch_until(60)
    fetching = asyncio.create_task(fetch_until(200))
    await asyncio.to_thread(kafka.restart)
    await publish(kafka, topics.commands, 100, 100)
    await fetching
    await log.close()
    assert [record.offset for record in found] == list(range(200))
    assert [record.value for record in found] == [b"%d" % n for n in range(200)]


async def test_a_membership_outlives_a_restart_of_the_broker(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    member = Membership(connection, topics.commands, topics.prefix, session_timeout=30)
    await member.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while member.rebalancing:
                await member.changed()
        await asyncio.to_thread(kafka.restart)
        other = Membership(connection, topics.commands, topics.prefix, session_timeout=30)
        try:
            await other.start()
            # That another one could join shows that the member spoke to the group after the restart.
            async with asyncio.timeout(PATIENCE):
                while other.rebalancing or member.rebalancing:
                    changes = {asyncio.ensure_future(one.changed()) for one in (other, member)}
                    await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            assert sorted([*member.assigned, *other.assigned]) == [0]
            assert member.failed is None
        finally:
            await other.leave()
    finally:
        await member.leave()


async def test_leaving_while_the_broker_is_unreachable_takes_seconds(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    before = asyncio.all_tasks()
    member = Membership(connection, topics.commands, topics.prefix)
    await member.start()
    async with asyncio.timeout(PATIENCE):
        while member.rebalancing:
            await member.changed()
    kafka.kill()
    try:
        async with asyncio.timeout(40):
            await member.commit({0: 1})
            await member.leave()
        assert asyncio.all_tasks() == before
    finally:
        await asyncio.to_thread(kafka.restart)


async def test_a_claim_that_finds_no_broker_can_be_made_later(
    kafka: EmbeddedKafka, connection: Connection, topics: Topics
) -> None:
    kafka.kill()
    log = KafkaResultsLog(ClusterClient(connection), topics, 0)
    try:
        with pytest.raises(OwnerError):
            await log.claim()
    finally:
        await asyncio.to_thread(kafka.restart)
    await log.claim()
    assert await log.append([record("late")]) == 0
    await log.close()
