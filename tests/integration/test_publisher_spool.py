"""The spool and a real Kafka: what a publisher left is drained once and in order, and removed only afterwards."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.books import read_all
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import Publisher, ResultTimeoutError, SpoolError, SyncPublisher
from waypost.publisher.spool.file import SpoolFile
from waypost.wire.envelope import open_envelope
from waypost_worker.devserver import Servers

PARTITIONS = 3
NOWHERE = "127.0.0.1:1"


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def publisher_of(world: Deployment, spool: Path, *, away: bool = False, **options: Any) -> Publisher:
    bootstrap = NOWHERE if away else world.endpoints.bootstrap_servers
    return Publisher(bootstrap, topic_prefix=world.topics.prefix, spool=spool, **options)


async def arrived(world: Deployment) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for records in (await read_all(world.endpoints, world.topics.commands)).values():
        for record in records:
            envelope = open_envelope(record)
            found.setdefault(envelope.session_id or "", []).append(envelope.id)
    return found


def create(publisher: Publisher, count: int, sent: dict[str, list[str]], sessions: int = 5) -> None:
    for number in range(count):
        session = f"session-{number % sessions}"
        sent.setdefault(session, []).append(publisher.create(session, "n", {"number": number}))


def spools(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.spool*"))


async def test_what_several_publishers_left_comes_first_and_in_their_order(
    world: Deployment, spool: Path
) -> None:
    sent: dict[str, list[str]] = {}
    for _ in range(3):
        async with publisher_of(world, spool, away=True, source="/earlier") as publisher:
            create(publisher, 700, sent)
            assert await publisher.close(0) > 0
    async with publisher_of(world, spool, source="/later") as publisher:
        create(publisher, 700, sent)
        assert publisher.stats().recovered == 2100
        assert await publisher.flush(PATIENCE) == 0
        stats = publisher.stats()
        assert (stats.accepted, stats.delivered, stats.spooled, stats.spooled_bytes) == (700, 2800, 0, 0)
    assert await arrived(world) == sent
    assert spools(spool) == []
    records = [r for many in (await read_all(world.endpoints, world.topics.commands)).values() for r in many]
    sources = [dict(record.headers)["ce_source"] for record in records]
    assert (sources.count(b"/earlier"), sources.count(b"/later")) == (2100, 700)


@pytest.mark.parametrize("durability", ["memory", "spool"])
async def test_much_more_than_fits_into_memory_arrives_once_and_in_order(
    world: Deployment, spool: Path, durability: Any
) -> None:
    sent: dict[str, list[str]] = {}
    async with publisher_of(world, spool, durability=durability, max_buffer_count=200) as publisher:
        for _ in range(60):
            await publisher.drain()
            create(publisher, 50, sent)
        assert await publisher.flush(PATIENCE) == 0
        assert publisher.stats().delivered == 3000
        await world.until(lambda: publisher.stats().spooled == 0)
    assert await arrived(world) == sent
    assert spools(spool) == []


async def test_a_command_leaves_the_disk_only_after_its_acknowledgement(
    world: Deployment, spool: Path
) -> None:
    acknowledged: set[str] = set()
    seen: list[tuple[set[str], set[str]]] = []
    sent: set[str] = set()
    options = {"durability": "spool", "on_delivery": lambda command_id, _: acknowledged.add(command_id)}
    async with publisher_of(world, spool, **options) as publisher:
        reading = sqlite3.connect(next(spool.glob("*.spool")))  # noqa: ASYNC240
        for number in range(300):
            sent.add(publisher.create(f"session-{number % 7}", "n", {}))
            if number % 10 == 0:
                # In this order: what is gone from the disk must have been acknowledged before we looked.
                kept = {row[0] for row in reading.execute("select id from commands")}
                seen.append((sent - kept, set(acknowledged)))
                await asyncio.sleep(0)
        reading.close()
        assert await publisher.flush(PATIENCE) == 0
    assert all(gone <= known for gone, known in seen)
    assert acknowledged == sent


async def test_a_partition_waits_until_the_batch_before_the_last_is_off_the_disk(
    world: Deployment, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SpoolFile, rows: Any) -> None:
        raise SpoolError("the disk is stuck")

    sent: dict[str, list[str]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(SpoolFile, "remove", refuse)
        async with publisher_of(world, spool, durability="spool") as publisher:
            create(publisher, 1000, sent, sessions=1)
            await world.until(lambda: publisher.stats().spool_error is not None)
            await world.until(lambda: publisher.stats().delivered == 192)
            assert await publisher.flush(1) == 808
            assert publisher.stats().delivered == 192  # of one session, what the worker surely remembers
            patch.undo()
            assert await publisher.flush(PATIENCE) == 0
            assert publisher.stats().spool_error is None
    assert await arrived(world) == sent


async def test_what_is_sent_again_by_the_next_publisher_changes_nothing(
    world: Deployment, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: SpoolFile, rows: Any) -> None:
        raise SpoolError("the disk is stuck")

    sent: dict[str, list[str]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(SpoolFile, "remove", refuse)
        async with publisher_of(world, spool, durability="spool") as publisher:
            create(publisher, 600, sent, sessions=1)
            await world.until(lambda: publisher.stats().delivered == 192)
            assert await publisher.close(0) == 408
    async with publisher_of(world, spool) as publisher:
        assert publisher.stats().recovered == 600
        assert await publisher.flush(PATIENCE) == 0
    (found,) = (await arrived(world)).values()
    assert len(found) == 792
    for partition in range(PARTITIONS):
        world.own(partition)
    books = await world.balanced()
    assert (books.commands, books.duplicates, books.applied) == (792, 192, 600)
    assert list(dict.fromkeys(found)) == sent["session-0"]


async def test_two_publishers_that_start_together_drain_what_is_left_once(
    world: Deployment, spool: Path
) -> None:
    sent: dict[str, list[str]] = {}
    async with publisher_of(world, spool, away=True) as publisher:
        create(publisher, 500, sent)
        await publisher.close(0)
    started = await asyncio.gather(*(publisher_of(world, spool).start() for _ in range(4)))
    assert sorted(publisher.stats().recovered for publisher in started) == [0, 0, 0, 500]
    assert [await publisher.close(30) for publisher in started] == [0, 0, 0, 0]
    assert await arrived(world) == sent


@pytest.mark.parametrize("durability", ["memory", "spool"])
async def test_one_that_lives_sends_what_another_left_if_nobody_starts_in_its_place(
    world: Deployment, spool: Path, durability: Any
) -> None:
    sent: dict[str, list[str]] = {}
    async with publisher_of(world, spool, durability=durability, adopt_after=0.1) as living:
        mine = [living.create("mine", "n", {"number": number}) for number in range(300)]
        async with publisher_of(world, spool, away=True, source="/dead") as publisher:
            create(publisher, 700, sent)
            assert await publisher.close(0) == 700
        await world.until(lambda: living.stats().recovered == 700)
        mine += [living.create("mine", "n", {"number": number}) for number in range(300)]
        assert await living.flush(PATIENCE) == 0
        stats = living.stats()
        assert (stats.accepted, stats.delivered, stats.spooled, stats.spooled_bytes) == (600, 1300, 0, 0)
        await world.until(lambda: len(spools(spool)) == 3)  # its own, with SQLite's two files
    assert await arrived(world) == {**sent, "mine": mine}
    assert spools(spool) == []


async def test_one_that_can_not_send_leaves_what_another_left_to_those_that_can(
    world: Deployment, spool: Path
) -> None:
    sent: dict[str, list[str]] = {}
    async with publisher_of(world, spool, away=True, adopt_after=0.01) as away:
        async with publisher_of(world, spool, away=True) as publisher:
            create(publisher, 50, sent)
            await publisher.close(0)
        async with publisher_of(world, spool, adopt_after=0.6) as able:
            assert able.stats().recovered == 50
            assert await able.flush(PATIENCE) == 0
        assert away.stats().recovered == 0
    assert await arrived(world) == sent


async def test_threads_write_through_and_everything_arrives_in_each_ones_order(
    world: Deployment, spool: Path
) -> None:
    sent: dict[str, list[str]] = {}

    def work(publisher: SyncPublisher, session: str) -> None:
        sent[session] = [publisher.create(session, "n", {"number": number}) for number in range(300)]

    def run() -> int:
        with SyncPublisher(
            world.endpoints.bootstrap_servers,
            topic_prefix=world.topics.prefix,
            spool=spool,
            durability="spool",
            on_full="block",
            max_spool_bytes=100_000,
        ) as publisher:
            asyncio.run(gather(publisher))
            return publisher.flush(PATIENCE)

    async def gather(publisher: SyncPublisher) -> None:
        await asyncio.gather(*(asyncio.to_thread(work, publisher, f"session-{n}") for n in range(4)))

    assert await asyncio.to_thread(run) == 0
    assert await arrived(world) == sent


async def test_a_time_out_says_how_far_the_command_came(world: Deployment, spool: Path) -> None:
    async with publisher_of(world, spool, away=True, durability="spool") as publisher:
        with pytest.raises(ResultTimeoutError, match="in the spool and will be sent") as waiting:
            await publisher.create_and_wait("s", "n", {}, timeout=0.1)
        assert (waiting.value.reached, waiting.value.partition, waiting.value.offset) == (
            "waiting",
            None,
            None,
        )
        await publisher.close(0)
    async with publisher_of(world, spool) as publisher:
        assert await publisher.flush(PATIENCE) == 0  # connected, and what was left is in Kafka
        with pytest.raises(ResultTimeoutError, match="Kafka has it") as known:
            await publisher.create_and_wait("s", "n", {}, timeout=3)
        assert (known.value.reached, known.value.offset) == ("acknowledged", 1)
