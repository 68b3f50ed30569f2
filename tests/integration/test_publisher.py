"""The publisher on a real Kafka: everything accepted arrives, in order, and is told of."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.oracle.books import read_all
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import (
    DeliveryError,
    Publisher,
    SyncPublisher,
    Topics,
)
from waypost.wire.decode import parse_body
from waypost.wire.envelope import open_envelope
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers

PARTITIONS = 3
STATE = {"text": "ü\u0000", "list": [1, 2.5, None, True]}


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
async def publisher(world: Deployment) -> AsyncIterator[Publisher]:
    async with publisher_of(world) as running:
        yield running


def publisher_of(world: Deployment, **options: Any) -> Publisher:
    return Publisher(world.endpoints.bootstrap_servers, topic_prefix=world.topics.prefix, **options)


async def in_topic(world: Deployment) -> dict[int, list[Any]]:
    return await read_all(world.endpoints, world.topics.commands)


async def ids_by_session(world: Deployment) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for records in (await in_topic(world)).values():
        for record in records:
            envelope = open_envelope(record)
            found.setdefault(envelope.session_id or "", []).append(envelope.id)
    return found


async def test_each_call_becomes_one_command_that_the_worker_understands(
    world: Deployment, publisher: Publisher
) -> None:
    for partition in range(PARTITIONS):
        world.own(partition)
    exported = orjson.dumps(
        [{"id": "x:1", "name": "n", "timestamp": "2026-11-24T08:24:59Z", "data": {"a": 1}}]
    )
    sent = {
        publisher.create("s", "first", STATE, {"step": 1}): (EventType.CREATE, "created"),
        publisher.create("s", "second", STATE): (EventType.CREATE, "created"),
        publisher.pin("s", "s:1"): (EventType.PIN, "pinned"),
        publisher.unpin("s", "s:1"): (EventType.UNPIN, "unpinned"),
        publisher.rollback("s", "s:1", discard_later=True): (EventType.ROLLBACK, "rolled_back"),
        publisher.import_checkpoints("s", exported, "replace")[0]: (EventType.IMPORT, "imported"),
        publisher.configure("s", max_checkpoints=7, max_age=None): (EventType.CONFIGURE, "configured"),
        publisher.delete("s", "s:1"): (EventType.DELETE, "deleted"),
        publisher.clear("s"): (EventType.CLEAR, "cleared"),
        publisher.pin("s", "s:99"): (EventType.PIN, "rejected"),
    }
    assert await publisher.flush(PATIENCE) == 0
    await world.answered(len(sent))
    found = {}
    for records in (await world.results()).values():
        for record in records:
            body = orjson.loads(record.value)
            if "command" in body:
                kind = dict(record.headers)["ce_type"].decode()
                found[body["command"]["id"]] = kind.rpartition(".")[2]
    assert found == {command_id: result for command_id, (_, result) in sent.items()}
    envelopes = [open_envelope(r) for records in (await in_topic(world)).values() for r in records]
    assert [(e.id, e.type) for e in envelopes] == [(cid, kind) for cid, (kind, _) in sent.items()]
    books = await world.balanced()
    assert (books.commands, books.rejected) == (10, 1)


async def test_a_session_goes_to_its_partition_and_stays_in_order(
    world: Deployment, publisher: Publisher
) -> None:
    sent: dict[str, list[str]] = {}
    for number in range(3000):
        session = f"session-{number % 50}"
        sent.setdefault(session, []).append(publisher.create(session, "n", {"number": number}))
        if number % 100 == 0:
            await asyncio.sleep(0)
    assert await publisher.flush(PATIENCE) == 0
    assert await ids_by_session(world) == sent
    for partition, records in (await in_topic(world)).items():
        assert {partition_of(record.key.decode(), PARTITIONS) for record in records} == {partition}


async def test_data_at_the_limit_arrives_byte_for_byte(world: Deployment, publisher: Publisher) -> None:
    sizes = [900 * 1024 - 8, 10, 500_000, 900 * 1024 - 8]
    for size in sizes:
        publisher.create("s", "n" * 200, {"x": "d" * size}, {"m": "x" * 16_000})
    assert await publisher.flush(PATIENCE) == 0
    (found,) = [records for records in (await in_topic(world)).values() if records]
    bodies: list[Any] = [parse_body(EventType.CREATE, record.value) for record in found]
    assert [len(body.data) for body in bodies] == [size + 8 for size in sizes]


async def test_flush_and_stats_tell_the_same_story(world: Deployment, publisher: Publisher) -> None:
    for number in range(100):
        publisher.create(f"session-{number}", "n", {})
    before = publisher.stats()
    assert (before.accepted, before.delivered, before.buffered) == (100, 0, 100)
    assert before.buffered_bytes > 0
    assert await publisher.flush(PATIENCE) == 0
    after = publisher.stats()
    assert (after.accepted, after.delivered, after.buffered, after.buffered_bytes) == (100, 100, 0, 0)
    assert (after.connected, after.waiting_seconds, after.last_error) == (True, 0.0, None)
    assert await publisher.close() == 0


async def test_the_delivery_callback_gets_each_command_once(world: Deployment) -> None:
    told: list[tuple[str, BaseException | None]] = []
    async with publisher_of(world, on_delivery=lambda *each: told.append(each)) as publisher:
        ids = [publisher.create("s", "n", {}) for _ in range(500)]
        assert await publisher.flush(PATIENCE) == 0
    assert told == [(command_id, None) for command_id in ids]


async def test_room_slows_an_agent_down_to_what_kafka_takes(world: Deployment) -> None:
    async with publisher_of(world, max_buffer_count=100) as publisher:
        for number in range(1000):
            await publisher.drain()
            publisher.create("s", "n", {"number": number})
        assert await publisher.flush(PATIENCE) == 0
        assert publisher.stats().delivered == 1000


async def test_compression_is_an_option(world: Deployment) -> None:
    async with publisher_of(world, kafka_options={"compression_type": "lz4"}) as publisher:
        sent = [publisher.create("s", "n", {"text": "again and " * 100}) for _ in range(200)]
    assert await ids_by_session(world) == {"s": sent}


async def test_defaults_go_to_every_partition(world: Deployment, publisher: Publisher) -> None:
    ids = await publisher.configure_defaults(max_checkpoints=9)
    assert await publisher.flush(PATIENCE) == 0
    found = await in_topic(world)
    assert [[open_envelope(r).id for r in found[partition]] for partition in range(PARTITIONS)] == [
        [one] for one in ids
    ]
    for partition in range(PARTITIONS):
        world.own(partition)
    await world.answered(PARTITIONS)
    results = [orjson.loads(records[-1].value) for records in (await world.results()).values()]
    assert [result["policy"]["max_checkpoints"] for result in results] == [9] * PARTITIONS


async def test_a_topic_that_is_made_later_is_found(servers: Servers, topic_prefix: str) -> None:
    topics = Topics(topic_prefix)
    async with Publisher(servers.endpoints.bootstrap_servers, topic_prefix=topic_prefix) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(10)]
        assert await publisher.flush(0.5) == 10
        await make_topic(servers, topics.commands)
        assert await publisher.flush(PATIENCE) == 0
    (records,) = (await read_all(servers.endpoints, topics.commands)).values()
    assert [open_envelope(record).id for record in records] == sent


async def make_topic(servers: Servers, name: str, **settings: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1, topic_configs=settings)])
    finally:
        await admin.close()


async def test_a_command_that_the_topic_refuses_is_reported_and_the_others_arrive_in_order(
    servers: Servers, topic_prefix: str
) -> None:
    topics = Topics(topic_prefix)
    await make_topic(servers, topics.commands, **{"max.message.bytes": "20000"})
    told: dict[str, BaseException | None] = {}
    async with Publisher(
        servers.endpoints.bootstrap_servers, topic_prefix=topic_prefix, on_delivery=told.__setitem__
    ) as publisher:
        sent = [publisher.create("s", "n", {"x": "d" * 1000}) for _ in range(100)]
        large = publisher.create("s", "n", {"x": "d" * 30_000})
        sent += [publisher.create("s", "n", {"x": "d" * 1000}) for _ in range(100)]
        assert await publisher.flush(PATIENCE) == 0
        assert (publisher.stats().delivered, publisher.stats().failed) == (200, 1)
    assert isinstance(told.pop(large), DeliveryError)
    assert told == dict.fromkeys(sent)
    (records,) = (await read_all(servers.endpoints, topics.commands)).values()
    assert [open_envelope(record).id for record in records] == sent


async def test_a_producer_with_a_wrong_sequence_is_replaced_and_nothing_is_lost(
    world: Deployment, publisher: Publisher
) -> None:
    sent = [publisher.create("s", "n", {"number": 0})]
    assert await publisher.flush(PATIENCE) == 0
    assert publisher._sender is not None
    for lane in publisher._sender._lanes:
        # What a broker sees that has forgotten this producer, or one that has a gap.
        for partition in range(PARTITIONS):
            lane._producer._sequences[partition] += 5
        break
    sent += [publisher.create("s", "n", {"number": number}) for number in range(1, 500)]
    assert await publisher.flush(PATIENCE) == 0
    assert await ids_by_session(world) == {"s": sent}


async def test_a_producer_is_replaced_before_its_sequence_numbers_run_out(
    world: Deployment, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.publisher.sender._LAST_SEQUENCE", 100)
    sent = []
    producers: dict[int, Any] = {}  # held, so that no address is used twice
    for number in range(1000):
        sent.append(publisher.create("s", "n", {"number": number}))
        if number % 90 == 0:
            assert await publisher.flush(PATIENCE) == 0
            assert publisher._sender is not None
            producers |= {id(lane._producer): lane._producer for lane in publisher._sender._lanes}
    assert await publisher.flush(PATIENCE) == 0
    assert len(producers) > 1
    assert await ids_by_session(world) == {"s": sent}


async def test_closing_leaves_no_task_behind(world: Deployment) -> None:
    before = asyncio.all_tasks()
    async with publisher_of(world) as publisher:
        publisher.create("s", "n", {})
    await world.until(lambda: asyncio.all_tasks() <= before)


async def test_threads_share_a_sync_publisher_and_each_session_stays_in_order(world: Deployment) -> None:
    sent: dict[str, list[str]] = {f"session-{number}": [] for number in range(4)}

    def work(publisher: SyncPublisher, session: str) -> None:
        for number in range(500):
            sent[session].append(publisher.create(session, "n", {"number": number}))

    def all_work() -> tuple[int, int]:
        with SyncPublisher(
            world.endpoints.bootstrap_servers,
            topic_prefix=world.topics.prefix,
            max_buffer_count=50,
            on_full="block",
        ) as publisher:
            threads = [threading.Thread(target=work, args=(publisher, session)) for session in sent]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return publisher.flush(PATIENCE), publisher.stats().delivered

    assert await asyncio.to_thread(all_work) == (0, 2000)
    assert await ids_by_session(world) == sent


LEFT_OPEN = """
import sys
from waypost import SyncPublisher
publisher = SyncPublisher(sys.argv[1], topic_prefix=sys.argv[2])
for number in range(300):
    publisher.create("s", "n", {"number": number})
"""


async def test_a_sync_publisher_left_open_is_flushed_when_the_interpreter_exits(world: Deployment) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LEFT_OPEN, world.endpoints.bootstrap_servers, world.topics.prefix],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len((await ids_by_session(world))["s"]) == 300
