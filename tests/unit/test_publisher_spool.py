"""A publisher with a spool on a real disk, without Kafka: what is kept, what is refused, what is told."""

import asyncio
import errno
import os
import resource
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.timeouts import PATIENCE
from tests.unit.spools import NOWHERE, kept, logs, names, until

from waypost import (
    BufferFullError,
    DeliveryError,
    InvalidCommandError,
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.pending import Pending
from waypost.publisher.spool.reader import Reader
from waypost.wire.topics import partition_of


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse what goes beyond so many bytes of a file, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sent_over(publisher: Publisher, partitions: int, most: int) -> list[str]:
    """Take commands through the buffer as the sender does; their ids, partition by partition."""
    buffer, found = publisher._buffer, []
    buffer.set_partition_count(partitions)
    buffer.route(most)
    for partition in range(partitions):
        taken = buffer.take(partition, most, 10**9, {})
        gone = buffer.acknowledge(partition, len(taken))
        assert not buffer.settle(partition, gone, lambda: None)
        found += [each.command_id for each in gone]
    return found


async def test_each_call_is_in_the_spool_before_it_returns(tmp_path: Path) -> None:
    publisher = await Publisher(NOWHERE, spool=tmp_path).start()
    sent = []
    for number in range(20):
        sent.append(publisher.create("s", "n", {"number": number}))
        (path,) = logs(tmp_path)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir(0o700)
        shutil.copy(path, copy)
        assert kept(copy) == sent
    stats = publisher.stats()
    assert (stats.accepted, stats.buffered, stats.spooled) == (20, 20, 20)
    assert stats.spooled_bytes < path.stat().st_size < stats.spooled_bytes + 200
    assert await publisher.close(0) == 20
    assert kept(tmp_path) == sent


async def test_closing_keeps_everything_in_the_spool_and_reports_nothing_as_lost(tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    publisher = await Publisher(NOWHERE, spool=tmp_path, on_delivery=told.__setitem__).start()
    sent = [publisher.create("s", "n", {}) for _ in range(50)]
    assert await publisher.close(0) == 50
    assert (kept(tmp_path), told) == (sent, {})


async def test_what_does_not_fit_into_memory_comes_back_in_order(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=100) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(1000)]
        stats = publisher.stats()
        assert (stats.buffered, stats.spooled, publisher._buffer._count) == (1000, 1000, 100)
        found: list[str] = []
        while len(found) < 1000:
            found += sent_over(publisher, 1, 30)
            await until(lambda: publisher._buffer._arrivals or not len(publisher._buffer))
        assert found == sent
        stats = publisher.stats()
        assert (stats.buffered, stats.buffered_bytes, stats.spooled_bytes) == (0, 0, 0)
        sent = [publisher.create("s", "n", {"number": number}) for number in range(10)]
        assert sent_over(publisher, 1, 100) == sent, "memory is all there is again"
        await publisher.close(0)
    assert names(tmp_path) == ["directory.lock"]


async def test_what_comes_now_waits_behind_what_is_on_the_disk_alone(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=20) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(100)]
        found: list[str] = []
        while len(publisher._buffer):
            found += sent_over(publisher, 1, 20)
            if len(sent) < 200:
                sent.append(publisher.create("s", "n", {}))  # there is room in memory now
            await until(lambda: publisher._buffer._arrivals or not len(publisher._buffer))
        assert found == sent
        await publisher.close(0)


async def test_what_overflows_behind_what_a_dead_publisher_left_comes_back_in_order(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(40)]
        assert sent_over(publisher, 1, 20) == sent[:20]
        await publisher.close(0)
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=50) as publisher:
        await until(lambda: publisher._buffer._count == 20)  # all that was left is in memory
        sent += [publisher.create("s", "n", {"number": number}) for number in range(200)]
        found: list[str] = []
        while len(publisher._buffer):
            found += sent_over(publisher, 1, 30)
            await until(lambda: publisher._buffer._arrivals or not len(publisher._buffer))
        assert found == sent[20:]
        assert publisher.stats().set_aside == 0
        await publisher.close(0)


async def test_what_was_acknowledged_is_not_sent_again(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create(f"s-{number % 5}", "n", {}) for number in range(100)]
        gone = sent_over(publisher, 3, 60)
        await publisher.close(0)
    assert len(gone) == 60
    assert kept(tmp_path) == [each for each in sent if each not in gone]


async def test_a_partition_that_waits_does_not_make_others_repeat_what_they_sent(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        buffer = publisher._buffer
        buffer.set_partition_count(2)
        sent = [publisher.create(f"s-{number % 7}", "n", {}) for number in range(200)]
        buffer.route(1000)
        gone = buffer.acknowledge(1, len(buffer.take(1, 1000, 10**9, {})))
        assert 0 < len(gone) < 200
        buffer.settle(1, gone, lambda: None)
        buffer.set_partition_count(3)  # what was acknowledged stays so if the topic grows
        await publisher.close(0)
    ids = {each.command_id for each in gone}
    assert kept(tmp_path) == [each for each in sent if each not in ids]


async def test_files_go_as_they_are_emptied(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_spool_bytes=1_000_000) as publisher:
        for _ in range(20):
            for number in range(150):
                publisher.create("s", "n", {"number": number, "text": "d" * 900})
            assert len(sent_over(publisher, 1, 1000)) == 150
            await until(lambda: len(logs(tmp_path)) <= 2)
        assert sum(path.stat().st_size for path in logs(tmp_path)) < 200_000
        assert publisher.stats().spooled_bytes == 0
        await publisher.close(0)


async def test_a_stuck_partition_does_not_keep_what_others_sent_on_the_disk(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_spool_bytes=1_000_000) as publisher:
        buffer = publisher._buffer
        buffer.set_partition_count(2)
        waits, goes = (next(f"{n}" for n in range(99) if partition_of(f"{n}", 2) == each) for each in (0, 1))
        stuck = []
        for number in range(4000):
            stuck += [publisher.create(waits, "n", {"number": number})] if number % 50 == 0 else []
            publisher.create(goes, "n", {"number": number, "text": "d" * 900})
            if number % 100 == 99:
                buffer.route(1000)
                gone = buffer.acknowledge(1, len(buffer.take(1, 1000, 10**9, {})))
                assert len(gone) == 100
                buffer.settle(1, gone, lambda: None)
        await until(lambda: sum(path.stat().st_size for path in logs(tmp_path)) < 500_000)
        assert len(buffer) == len(stuck) == 80
        assert publisher.stats().spooled_bytes < 20_000
        await publisher.close(0)
    assert kept(tmp_path) == stuck


async def test_persisted_without_a_spool_is_refused() -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(ValueError, match="Without a spool"):
            await publisher.persisted()


async def test_a_full_spool_raises_and_leaves_the_books_as_they_were(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_spool_bytes=2000) as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(4)]
        before = publisher.stats()
        with pytest.raises(BufferFullError, match="spool is full"):
            publisher.create("s", "n", {"x": "d" * 1800})
        assert publisher.stats() == before
        assert (before.accepted, before.buffered, before.spooled) == (4, 4, 4)
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_dropping_the_oldest_makes_room_and_they_do_not_come_back(tmp_path: Path) -> None:
    told: dict[str, BaseException | None] = {}
    async with Publisher(
        NOWHERE, spool=tmp_path, max_spool_bytes=2000, on_full="drop_oldest", on_delivery=told.__setitem__
    ) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(1000)]
        stats = publisher.stats()
        assert (stats.dropped, stats.accepted, stats.buffered) == (
            1000 - stats.buffered,
            1000,
            stats.buffered,
        )
        assert 1 < stats.buffered < 20
        assert list(told) == sent[: stats.dropped]
        assert all(isinstance(error, DeliveryError) for error in told.values())
        await until(lambda: sum(path.stat().st_size for path in logs(tmp_path)) < 150_000)
        await publisher.close(0)
    assert kept(tmp_path) == sent[stats.dropped :]


def test_block_waits_for_room_in_the_spool(tmp_path: Path) -> None:
    with SyncPublisher(NOWHERE, spool=tmp_path, max_spool_bytes=300, on_full="block") as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(2)]
        putting = threading.Thread(target=lambda: sent.append(publisher.create("s", "n", {})))
        putting.start()
        assert sent_over(publisher._publisher, 1, 1) == sent[:1]
        putting.join(PATIENCE)
        assert publisher.close(0) == 2
    assert kept(tmp_path) == sent[1:]


async def test_a_full_disk_is_an_error_that_says_what_was_kept_and_room_helps(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(3)]
        (path,) = logs(tmp_path)
        size = path.stat().st_size
        with (
            file_size_limit(size + 100),
            pytest.raises(SpoolError, match=r"not accepted\. All that were accepted before are kept"),
        ):
            publisher.create("s", "n", {"x": "d" * 9_000})
        assert path.stat().st_size == size, "half a command was left behind"
        stats = publisher.stats()
        assert (stats.accepted, stats.spooled, stats.buffered) == (3, 3, 3)
        assert os.strerror(errno.ENOSPC) in str(stats.spool_error)
        sent.append(publisher.create("s", "n", {}))
        assert publisher.stats().spool_error is None
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_what_the_disk_did_not_take_and_does_not_let_go_of_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {})]
        with file_size_limit(logs(tmp_path)[0].stat().st_size + 100), monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(SpoolError):
                publisher.create("s", "n", {"x": "d" * 9_000})
        sent.append(publisher.create("s", "n", {}))
        assert len(logs(tmp_path)) == 2, "it goes on in a new file"
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_an_interrupted_call_leaves_nothing_that_is_sent_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def interrupted(fd: int, data: bytes, offset: int) -> int:
        write(fd, data, offset)
        raise KeyboardInterrupt

    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {})]
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", interrupted)
            with pytest.raises(KeyboardInterrupt):
                publisher.create("s", "n", {})
        sent.append(publisher.create("s", "n", {}))
        assert publisher.stats().accepted == 2
        await publisher.close(0)
    assert kept(tmp_path) == sent


async def test_a_watermark_that_cannot_be_written_holds_up_its_partition_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        sent = [publisher.create("s", "n", {}) for _ in range(3)]
        buffer, settled = publisher._buffer, threading.Event()
        buffer.set_partition_count(1)
        buffer.route(2)
        gone = buffer.acknowledge(0, len(buffer.take(0, 2, 10**9, {})))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            assert buffer.settle(0, gone, settled.set)
            await until(lambda: publisher.stats().spool_error is not None)
            assert not settled.is_set()
        await until(settled.is_set)
        await until(lambda: publisher.stats().spool_error is None)
        await publisher.close(0)
    assert kept(tmp_path) == sent[2:]


async def test_a_directory_that_is_removed_meanwhile_is_reported_and_calls_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "spool"
    async with Publisher(NOWHERE, spool=directory) as publisher:
        publisher.create("s", "n", {})
        shutil.rmtree(directory)
        await until(lambda: "was removed" in str(publisher.stats().spool_error))
        with pytest.raises(SpoolError, match="can't be written"):
            publisher.create("s", "n", {})
        assert await publisher.close(0) == 1
    assert caplog.text.count("The spool has a problem") == 1
    assert "Traceback" not in caplog.text


async def test_unreadable_commands_are_kept_and_the_rest_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        first = [publisher.create("s", "n", {}) for _ in range(1000)]
        await publisher.close(0)
    good, reads = Reader.read, 0

    def read(self: Reader, most: int) -> list[Pending]:
        nonlocal reads
        reads += 1
        if reads > 1 and self.log.number == 1:
            raise OSError("the disk is broken")
        return good(self, most)

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", read)
        # 300 are loaded at a time with this much memory.
        async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=1200) as publisher:
            second = publisher.create("s", "n", {})
            await until(lambda: publisher.stats().recovered == 300)
            assert publisher.stats().buffered == 301
            await publisher.close(0)
    assert "can't be read. It is kept" in caplog.text
    assert kept(tmp_path) == [*first, second]


@pytest.mark.parametrize("spooled", [False, True])
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
    tmp_path: Path, spooled: bool, name: str, data: dict[str, Any], says: str
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path if spooled else None) as publisher:
        with pytest.raises(InvalidCommandError, match=says):
            publisher.create("s", name, data)
        stats = publisher.stats()
        assert (stats.accepted, stats.buffered, stats.buffered_bytes, stats.spooled) == (0, 0, 0, 0)
        await publisher.close(0)
    assert kept(tmp_path) == []


async def test_a_canceled_wait_for_a_result_leaves_the_command_accepted(tmp_path: Path) -> None:
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


def test_the_order_of_each_thread_holds(tmp_path: Path) -> None:
    sent: dict[str, list[str]] = {f"session-{number}": [] for number in range(8)}
    with SyncPublisher(NOWHERE, spool=tmp_path) as publisher:

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
