"""A publisher with a spool on a real disk, without Kafka: what is kept, what is refused, what is told."""

import asyncio
import shutil
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pending import pending
from tests.unit.spools import NOWHERE, kept, spool_in, until

from waypost import (
    BufferFullError,
    DeliveryError,
    InvalidCommandError,
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.pending import Pending
from waypost.publisher.spool.file import SpoolFile
from waypost.publisher.spool.write_through import GroupCommit


async def test_each_call_is_in_the_spool_before_it_returns(tmp_path: Path) -> None:
    publisher = await Publisher(NOWHERE, spool=tmp_path, durability="spool").start()
    reading = sqlite3.connect(spool_in(tmp_path))
    sent = []
    for number in range(20):
        sent.append(publisher.create("s", "n", {"number": number}))
        found = reading.execute("select id from commands order by row").fetchall()
        assert [command_id for (command_id,) in found] == sent
    stats = publisher.stats()
    assert (stats.accepted, stats.buffered, stats.spooled) == (20, 20, 20)
    reading.close()
    assert await publisher.close(0) == 20
    assert kept(tmp_path) == sent


async def test_closing_keeps_what_is_in_memory_in_the_spool_and_tells_nobody_that_it_is_lost(
    tmp_path: Path,
) -> None:
    told: dict[str, Any] = {}
    publisher = await Publisher(NOWHERE, spool=tmp_path, on_delivery=told.__setitem__).start()
    sent = [publisher.create("s", "n", {}) for _ in range(50)]
    assert await publisher.close(0) == 50
    assert (kept(tmp_path), told) == (sent, {})


async def test_what_does_not_fit_at_the_end_is_told_of(tmp_path: Path) -> None:
    told: dict[str, BaseException | None] = {}
    size = pending("x", value=b'{"name":"n","data":{}}').size
    publisher = await Publisher(
        NOWHERE, spool=tmp_path, max_spool_bytes=10 * size, on_delivery=told.__setitem__
    ).start()
    sent = [publisher.create("s", "n", {}) for _ in range(30)]
    assert await publisher.close(0) == 30
    assert kept(tmp_path) == sent[:10]
    assert list(told) == sent[10:]
    assert all(isinstance(error, DeliveryError) for error in told.values())


async def test_a_burst_beyond_the_memory_goes_to_the_disk_in_order(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=100) as publisher:
        sent = []
        for number in range(1000):
            sent.append(publisher.create("s", "n", {"number": number}))
            await publisher.drain()
        stats = publisher.stats()
        assert stats.buffered == 1000
        assert stats.spooled > 900
        assert stats.buffered_bytes < 100 * 600
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_while_kafka_is_silent_memory_is_written_to_the_disk_too(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, spool_after=0.2) as publisher:
        for _ in range(30):
            publisher.create("s", "n", {})
        await until(lambda: publisher.stats().spooled == 30)
        publisher.create("s", "n", {})
        await until(lambda: publisher.stats().spooled == 31)
        await publisher.close(0)


async def test_persisted_waits_until_nothing_is_in_memory_alone(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, spool_after=3600) as publisher:
        for _ in range(100):
            publisher.create("s", "n", {})
        await publisher.persisted()
        assert publisher.stats().spooled == 100
        await publisher.persisted()
        await publisher.close(0)


async def test_persisted_without_a_spool_is_refused() -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(ValueError, match="Without a spool"):
            await publisher.persisted()


async def test_a_full_spool_raises_and_leaves_the_books_as_they_were(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, durability="spool", max_spool_bytes=2000) as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(4)]
        with pytest.raises(BufferFullError, match="spool is full"):
            publisher.create("s", "n", {"x": "d" * 1000})
        stats = publisher.stats()
        assert (stats.accepted, stats.buffered, stats.spooled) == (4, 4, 4)
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_a_disk_that_refuses_is_an_error_at_the_call_and_the_next_call_goes_on(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, durability="spool") as publisher:
        first = publisher.create("s", "n", {})
        blocker = sqlite3.connect(spool_in(tmp_path), isolation_level=None)
        assert publisher._spooler is not None
        publisher._spooler.own._writing.execute("pragma busy_timeout = 0")
        blocker.execute("begin immediate")
        with pytest.raises(SpoolError, match="can't be written"):
            publisher.create("s", "n", {})
        blocker.execute("rollback")
        blocker.close()
        third = publisher.create("s", "n", {})
        assert publisher.stats().accepted == 2
        await publisher.close(0)
    assert kept(tmp_path) == [first, third]


async def test_what_can_not_be_removed_from_the_disk_is_removed_once_it_can(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, durability="spool") as publisher:
        publisher.create("s", "n", {})
        assert publisher._spooler is not None
        publisher._spooler.own._writing.execute("pragma busy_timeout = 0")
        blocker = sqlite3.connect(spool_in(tmp_path), isolation_level=None)
        blocker.execute("begin immediate")
        buffer, settled = publisher._buffer, threading.Event()
        buffer.set_partition_count(1)
        buffer.route(10)
        buffer.take(0, 10, 1_000_000, {})
        assert buffer.settle(buffer.acknowledge(0, 1), settled.set)
        await until(lambda: publisher.stats().spool_error is not None)
        blocker.execute("rollback")
        blocker.close()
        await until(settled.is_set)
        await publisher.close(0)
    assert kept(tmp_path) == []


async def test_a_directory_that_is_removed_meanwhile_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "spool"
    async with Publisher(NOWHERE, spool=directory) as publisher:
        publisher.create("s", "n", {})
        shutil.rmtree(directory)
        await until(lambda: "can't be found" in str(publisher.stats().spool_error))
        publisher.create("s", "n", {})
        assert await publisher.close(0) == 2
    assert caplog.text.count("the spool is in trouble") == 1
    assert "Traceback" not in caplog.text


async def test_a_full_disk_is_an_error_at_the_call_and_room_helps(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, durability="spool") as publisher:
        assert publisher._spooler is not None
        disk = publisher._spooler.own._writing
        sent = [publisher.create("s", "n", {})]
        disk.execute("pragma max_page_count = 5")
        with pytest.raises(SpoolError, match="disk is full"):
            publisher.create("s", "n", {"x": "d" * 90_000})
        assert publisher.stats().accepted == publisher.stats().spooled == 1
        disk.execute("pragma max_page_count = 1000000")
        sent.append(publisher.create("s", "n", {}))
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_a_full_disk_behind_a_full_memory_is_said_and_room_helps(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=100, spool_after=3600) as publisher:
        assert publisher._spooler is not None
        disk = publisher._spooler.own._writing
        disk.execute("pragma max_page_count = 5")
        sent = [publisher.create("s", "n", {"x": "d" * 900}) for _ in range(100)]
        with pytest.raises(BufferFullError):
            publisher.create("s", "n", {})
        await until(lambda: publisher.stats().spool_error is not None)
        assert "disk is full" in str(publisher.stats().spool_error)
        assert (publisher.stats().buffered, publisher.stats().spooled) == (100, 0)
        disk.execute("pragma max_page_count = 1000000")
        await publisher.drain()
        sent.append(publisher.create("s", "n", {}))
        await until(lambda: publisher.stats().spool_error is None)
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_what_becomes_unreadable_is_kept_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        first = [publisher.create("s", "n", {}) for _ in range(1000)]
        await publisher.close(0)
    good = SpoolFile.read

    def read(self: SpoolFile, after: int, *arguments: Any, **named: Any) -> list[Pending]:
        if self.path.name.endswith("1.spool") and after >= 300:
            raise SpoolError("the disk is broken")
        return good(self, after, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(SpoolFile, "read", read)
        # 300 are loaded at a time with this much memory.
        async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=1200) as publisher:
            second = publisher.create("s", "n", {})
            await until(lambda: publisher.stats().recovered == 300)
            assert publisher.stats().buffered == 301
            await publisher.close(0)
    assert "can't be sent, and is kept" in caplog.text
    assert kept(tmp_path) == [*first, second]


@pytest.mark.parametrize("durability", ["memory", "spool"])
@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("n", {"a": {"b": float("nan")}}, "data.a.b"),
        ("n", {"a": object()}, "data.a"),
        ("n", {"x": "d" * 1_000_000}, "data has"),
        ("", {}, "name"),
    ],
)
async def test_bad_input_leaves_buffer_and_spool_untouched(
    tmp_path: Path, durability: Any, name: str, data: dict[str, Any], says: str
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, durability=durability) as publisher:
        with pytest.raises(InvalidCommandError, match=says):
            publisher.create("s", name, data)
        stats = publisher.stats()
        assert (stats.accepted, stats.buffered, stats.buffered_bytes, stats.spooled) == (0, 0, 0, 0)
        await publisher.close(0)
    assert kept(tmp_path) == []


async def test_who_waits_for_a_result_and_is_cancelled_leaves_the_command_accepted(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        waiting = asyncio.create_task(publisher.create_and_wait("s", "n", {}))
        await until(lambda: publisher.stats().accepted == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert publisher._outcomes._landings == {}
        assert await publisher.close(0) == 1
    assert len(kept(tmp_path)) == 1


async def test_the_next_publisher_counts_what_the_last_one_left(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        first = [publisher.create("s", "n", {}) for _ in range(10)]
        await publisher.close(0)
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        second = [publisher.create("s", "n", {}) for _ in range(5)]
        stats = publisher.stats()
        assert (stats.accepted, stats.recovered, stats.buffered) == (5, 10, 15)
        assert await publisher.flush(0.01) == 15
        assert await publisher.close(0) == 15
    assert kept(tmp_path) == first + second


def test_threads_share_commits_and_each_threads_order_holds(tmp_path: Path) -> None:
    sent: dict[str, list[str]] = {f"session-{number}": [] for number in range(8)}
    with SyncPublisher(NOWHERE, spool=tmp_path, durability="spool") as publisher:

        def work(session: str) -> None:
            for number in range(200):
                sent[session].append(publisher.create(session, "n", {"number": number}))

        threads = [threading.Thread(target=work, args=[session]) for session in sent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert publisher.close(0) == 1600
    found = kept(tmp_path)
    assert Counter(found) == Counter(command_id for ids in sent.values() for command_id in ids)
    for ids in sent.values():
        mine = set(ids)
        assert [command_id for command_id in found if command_id in mine] == ids


def test_a_commit_takes_along_all_who_wait_and_fails_for_all_of_them() -> None:
    batches: list[list[int]] = []
    entered, go_on = threading.Event(), threading.Event()

    def write(items: list[int]) -> None:
        batches.append(items)
        entered.set()
        go_on.wait(10)
        if len(batches) == 2:
            raise SpoolError("full")

    group = GroupCommit(write)
    errors: list[BaseException] = []

    def submit(number: int) -> None:
        try:
            group.submit([number])
        except SpoolError as error:
            errors.append(error)

    first = threading.Thread(target=submit, args=[0])
    first.start()
    entered.wait(10)
    others = [threading.Thread(target=submit, args=[number]) for number in range(1, 6)]
    for thread in others:
        thread.start()
    while len(group._waiting) < 5:
        pass
    go_on.set()
    for thread in (first, *others):
        thread.join(10)
    assert [sorted(batch) for batch in batches] == [[0], [1, 2, 3, 4, 5]]
    assert len(errors) == 5
