"""The spool and a real Kafka: what a publisher left is drained once and in order, and removed only afterwards."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.books import read_all
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import Publisher, ResultTimeoutError, SyncPublisher
from waypost.publisher.spool.watermark import Watermark
from waypost.wire.envelope import open_envelope
from waypost_worker.devserver import Servers

PARTITIONS = 3
NOWHERE = "127.0.0.1:1"
COMMAND_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    return sorted(path.name for path in directory.iterdir() if path.name != "directory.lock")


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


@pytest.mark.parametrize("fsync", [False, True])
async def test_much_more_than_fits_into_memory_arrives_once_and_in_order(
    world: Deployment, spool: Path, fsync: bool
) -> None:
    sent: dict[str, list[str]] = {}
    async with publisher_of(world, spool, spool_fsync=fsync, max_buffer_count=200) as publisher:
        for _ in range(60):
            await publisher.drain()
            create(publisher, 50, sent)
        assert await publisher.flush(PATIENCE) == 0
        assert publisher.stats().delivered == 3000
        await world.until(lambda: publisher.stats().spooled == 0)
    assert await arrived(world) == sent
    assert spools(spool) == []


def contents(file: Path) -> bytes:
    """What a file holds; nothing if the spool has removed it meanwhile."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


async def test_a_command_leaves_the_disk_only_after_its_acknowledgment(
    world: Deployment, spool: Path
) -> None:
    acknowledged: set[str] = set()
    seen: list[tuple[set[str], set[str]]] = []
    sent: set[str] = set()
    async with publisher_of(
        world, spool, max_spool_bytes=500_000, on_delivery=lambda command_id, _: acknowledged.add(command_id)
    ) as publisher:
        for number in range(3000):
            sent.add(publisher.create(f"session-{number % 7}", "n", {"text": "d" * 500}))
            if number % 100 == 0:
                await asyncio.sleep(0)
                await publisher.drain()
                # In this order: what is gone from the disk must have been acknowledged before we looked.
                data = b"".join(map(contents, spool.glob("*.log")))  # noqa: ASYNC240
                kept = {found.decode() for found in COMMAND_ID.findall(data)}
                seen.append((sent - kept, set(acknowledged)))
        assert await publisher.flush(PATIENCE) == 0
    assert any(gone for gone, _ in seen)
    assert all(gone <= known for gone, known in seen)
    assert acknowledged == sent


def refused(self: Watermark, *_: int) -> None:
    raise OSError("the disk is stuck")


async def test_a_partition_waits_until_the_watermark_of_its_last_batch_is_written(
    world: Deployment, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, list[str]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(Watermark, "advance", refused)
        async with publisher_of(world, spool) as publisher:
            create(publisher, 1000, sent, sessions=1)
            await world.until(lambda: publisher.stats().spool_error is not None)
            await world.until(lambda: publisher.stats().delivered == 192)
            assert await publisher.flush(1) == 808
            assert publisher.stats().delivered == 192  # of one session, what the worker surely remembers
            patch.undo()
            assert await publisher.flush(PATIENCE) == 0
            await world.until(lambda: publisher.stats().spool_error is None)
    assert await arrived(world) == sent


@pytest.mark.parametrize("fsync", [False, True])
async def test_what_is_sent_again_by_the_next_publisher_changes_nothing(
    world: Deployment, spool: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    sent: dict[str, list[str]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(Watermark, "advance", refused)
        async with publisher_of(world, spool, spool_fsync=fsync) as publisher:
            create(publisher, 600, sent, sessions=1)
            await world.until(lambda: publisher.stats().delivered == 192)  # with fsync two batches
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


async def test_everything_arrives_in_the_order_of_each_thread(world: Deployment, spool: Path) -> None:
    sent: dict[str, list[str]] = {}

    def work(publisher: SyncPublisher, session: str) -> None:
        sent[session] = [publisher.create(session, "n", {"number": number}) for number in range(300)]

    def run() -> int:
        with SyncPublisher(
            world.endpoints.bootstrap_servers,
            topic_prefix=world.topics.prefix,
            spool=spool,
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
    async with publisher_of(world, spool, away=True) as publisher:
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
