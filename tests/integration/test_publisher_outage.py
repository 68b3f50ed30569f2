"""The publisher when Kafka is away: from the start, in the middle, frozen, and at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.oracle.books import read_all
from tests.support.processes import freeze
from tests.support.servers import SOON_BACK, ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost import BufferFullError, DeliveryError, Publisher, ResultTimeoutError, SyncPublisher, Topics
from waypost.wire.envelope import open_envelope
from waypost.wire.topics import partition_of
from waypost_worker.devserver import ClusterOptions, EmbeddedKafka, Endpoints
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

pytestmark = pytest.mark.servers

PARTITIONS = 3
SESSIONS = [f"session-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def kafka(server_directory: ServerDirectory) -> Iterator[EmbeddedKafka]:
    """A broker of this file's own, for killing."""
    with started(EmbeddedKafka(server_directory("kafka"), ClusterOptions(properties=SOON_BACK))) as running:
        yield running


@pytest.fixture
async def topics(kafka: EmbeddedKafka, topic_prefix: str) -> AsyncIterator[Topics]:
    made = Topics(topic_prefix)
    await create_topics(Connection(kafka.bootstrap_servers), made, PARTITIONS)
    yield made
    kafka.resume()
    if not kafka.running:
        await asyncio.to_thread(kafka.restart)


class Agent:
    """Publishes numbered commands over some sessions and remembers what was accepted."""

    def __init__(self, publisher: Publisher | SyncPublisher) -> None:
        self.publisher = publisher
        self.sent: dict[str, list[str]] = {session: [] for session in SESSIONS}
        self.count = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            session = SESSIONS[self.count % len(SESSIONS)]
            self.sent[session].append(
                self.publisher.create(session, "n", {"number": self.count, "x": "d" * 900})
            )
            self.count += 1

    async def keep_publishing(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.publish(10)
            await asyncio.sleep(0.005)


async def first_arrivals(kafka: EmbeddedKafka, topics: Topics) -> dict[str, list[str]]:
    """Command ids by session as the worker counts them: a repeated id is a duplicate without effect."""
    found: dict[str, dict[str, None]] = {session: {} for session in SESSIONS}
    for records in (await read_all(Endpoints(kafka.bootstrap_servers, ""), topics.commands)).values():
        for record in records:
            envelope = open_envelope(record)
            found[envelope.session_id or ""][envelope.id] = None
    return {session: list(ids) for session, ids in found.items()}


async def until(condition: Any, seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_publisher_starts_while_kafka_is_unreachable_and_delivers_once_it_is_back(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    address = kafka.bootstrap_servers
    kafka.kill()
    async with asyncio.timeout(20):
        publisher = await Publisher(address, topic_prefix=topics.prefix).start()
    agent = Agent(publisher)
    agent.publish(500)
    await until(lambda: publisher.stats().last_error is not None)
    assert (publisher.stats().connected, publisher.stats().buffered) == (False, 500)
    await asyncio.to_thread(kafka.restart)
    agent.publish(100)
    assert await publisher.flush(PATIENCE) == 0
    assert (publisher.stats().connected, publisher.stats().last_error) == (True, None)
    assert await publisher.close() == 0
    assert await first_arrivals(kafka, topics) == agent.sent


async def test_killing_kafka_under_load_loses_nothing_and_keeps_every_session_in_order(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    told: list[str] = []
    async with Publisher(
        kafka.bootstrap_servers,
        topic_prefix=topics.prefix,
        on_delivery=lambda command_id, _: told.append(command_id),
    ) as publisher:
        agent = Agent(publisher)
        stop = asyncio.Event()
        load = asyncio.create_task(agent.keep_publishing(stop))
        for _ in range(3):
            delivered = publisher.stats().delivered
            await until(lambda: publisher.stats().delivered > delivered + 500)  # noqa: B023
            kafka.kill()
            await asyncio.to_thread(kafka.restart)
        delivered = publisher.stats().delivered
        await until(lambda: publisher.stats().delivered > delivered)
        stop.set()
        await load
        assert await publisher.flush(PATIENCE) == 0
        assert publisher.stats().delivered == agent.count
    assert sorted(told) == sorted(command_id for ids in agent.sent.values() for command_id in ids)
    assert await first_arrivals(kafka, topics) == agent.sent


async def test_a_frozen_kafka_holds_up_no_call_and_nothing_is_lost(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    # Short patience: the publisher gives up its connection while Kafka is frozen, and sends everything again.
    options = {"request_timeout_ms": 1000}
    async with Publisher(
        kafka.bootstrap_servers, topic_prefix=topics.prefix, kafka_options=options
    ) as publisher:
        agent = Agent(publisher)
        agent.publish(50)
        assert await publisher.flush(PATIENCE) == 0
        freeze(kafka)
        agent.publish(2000)
        await until(lambda: publisher.stats().waiting_seconds > 0.2)
        await until(lambda: publisher.stats().last_error is not None)
        agent.publish(2000)
        assert publisher.stats().buffered == 4000
        kafka.resume()
        assert await publisher.flush(PATIENCE) == 0
    assert await first_arrivals(kafka, topics) == agent.sent


async def test_while_kafka_is_frozen_and_all_batches_are_full_calls_wake_nobody(
    kafka: EmbeddedKafka, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Publisher(kafka.bootstrap_servers, topic_prefix=topics.prefix) as publisher:
        agent = Agent(publisher)
        agent.publish(50)
        assert await publisher.flush(PATIENCE) == 0
        sender = publisher._sender
        assert sender is not None
        freeze(kafka)
        while not all(lane.blocked for lane in sender._lanes):
            agent.publish(100)
            await asyncio.sleep(0)
        agent.publish(1)
        await asyncio.sleep(0)  # it looks once more, and rests
        woken: list[int] = []
        monkeypatch.setattr(publisher._buffer, "_wake", lambda: woken.append(agent.count))
        for _ in range(50):
            agent.publish(20)
            await asyncio.sleep(0)
        assert woken == []
        monkeypatch.undo()
        kafka.resume()
        assert await publisher.flush(PATIENCE) == 0
    assert await first_arrivals(kafka, topics) == agent.sent


async def test_a_wait_while_kafka_is_unreachable_reports_the_command_as_buffered(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    async with Publisher(kafka.bootstrap_servers, topic_prefix=topics.prefix) as publisher:
        publisher.create("session-0", "n", {})
        assert await publisher.flush(PATIENCE) == 0
        kafka.kill()
        with pytest.raises(ResultTimeoutError, match="still in this publisher's buffer"):
            await publisher.create_and_wait("session-0", "n", {}, timeout=0.5)
        await asyncio.to_thread(kafka.restart)
        assert await publisher.flush(PATIENCE) == 0
        assert publisher.stats().delivered == 2


async def test_what_is_waited_for_while_kafka_is_frozen_is_known_to_be_sent(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    async with Publisher(kafka.bootstrap_servers, topic_prefix=topics.prefix) as publisher:
        publisher.create("session-0", "n", {})
        assert await publisher.flush(PATIENCE) == 0
        freeze(kafka)
        with pytest.raises(ResultTimeoutError, match="Kafka has not answered for") as caught:
            await publisher.create_and_wait("session-0", "n", {}, timeout=5)
        assert (caught.value.reached, caught.value.offset) == ("sent", None)
        assert caught.value.partition == partition_of("session-0", PARTITIONS)
        kafka.resume()
        assert await publisher.flush(PATIENCE) == 0


async def test_closing_while_kafka_is_unreachable_reports_what_is_left_and_ends_in_time(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    before = asyncio.all_tasks()
    told: dict[str, BaseException | None] = {}
    publisher = await Publisher(
        kafka.bootstrap_servers, topic_prefix=topics.prefix, on_delivery=told.__setitem__
    ).start()
    first = publisher.create("session-0", "n", {})
    assert await publisher.flush(PATIENCE) == 0
    kafka.kill()
    left = [publisher.create("session-0", "n", {}) for _ in range(10)]
    async with asyncio.timeout(30):
        assert await publisher.close(timeout=0.5) == 10
    assert told.pop(first) is None
    assert list(told) == left
    assert all(isinstance(error, DeliveryError) for error in told.values())
    await until(lambda: asyncio.all_tasks() <= before)


async def test_a_blocking_call_resumes_when_kafka_is_back(kafka: EmbeddedKafka, topics: Topics) -> None:
    def work() -> tuple[Agent, int]:
        with SyncPublisher(
            kafka.bootstrap_servers, topic_prefix=topics.prefix, max_buffer_count=100, on_full="block"
        ) as publisher:
            agent = Agent(publisher)
            agent.publish(100)
            publisher.flush(PATIENCE)
            kafka.kill()
            full = asyncio.run_coroutine_threadsafe(until(lambda: publisher.stats().buffered == 100), loop)
            full.add_done_callback(lambda _: loop.run_in_executor(None, kafka.restart))
            agent.publish(500)
            return agent, publisher.flush(PATIENCE)

    loop = asyncio.get_running_loop()
    agent, left = await asyncio.to_thread(work)
    assert left == 0
    assert await first_arrivals(kafka, topics) == agent.sent


async def test_a_full_buffer_raises_while_kafka_is_unreachable_and_accepts_again_afterwards(
    kafka: EmbeddedKafka, topics: Topics
) -> None:
    async with Publisher(
        kafka.bootstrap_servers, topic_prefix=topics.prefix, max_buffer_count=200
    ) as publisher:
        agent = Agent(publisher)
        kafka.kill()
        agent.publish(200)
        with pytest.raises(BufferFullError):
            agent.publish(1)
        await asyncio.to_thread(kafka.restart)
        assert await publisher.flush(PATIENCE) == 0
        agent.publish(100)
        assert await publisher.flush(PATIENCE) == 0
    assert await first_arrivals(kafka, topics) == agent.sent
