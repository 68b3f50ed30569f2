"""The publisher's spool on a real disk, without Kafka: what survives, who takes over, what is refused."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pending import pending

from waypost import (
    BufferFullError,
    DeliveryError,
    InvalidCommandError,
    Publisher,
    PublisherClosedError,
    SpoolError,
    SyncPublisher,
)
from waypost.group_commit import GroupCommit
from waypost.pending import Pending
from waypost.spool import SpoolFile
from waypost.spool_directory import claim
from waypost.topics import Topics

NOWHERE = "127.0.0.1:1"
TOPIC = Topics().commands


def kept(directory: Path) -> list[str]:
    """The command ids that the spools of a directory hold, in order; nobody may be using them."""
    taken = claim(directory, TOPIC, b"/test", fsync=False)
    try:
        return [each.command_id for file in taken.left for each in file.read(0, most=100_000)]
    finally:
        for file in taken.left:
            taken.give_up(file, empty=False)
        taken.give_up(taken.own, empty=True)


def spool_in(directory: Path) -> Path:
    return next(directory.glob("*.spool"))


async def until(condition: Any, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# The file.


def test_what_is_added_is_read_back_as_it_was(tmp_path: Path) -> None:
    SpoolFile.make(tmp_path / "1.spool", TOPIC, b"/me")
    file = SpoolFile(tmp_path / "1.spool")
    sent = [pending(f"{number}", f"s-{number}", bytes([number])) for number in range(5)]
    sent[2] = Pending("2", "waypost.defaults.configure", None, b"{}", b"2026", b"00-trace", 7)
    for row, each in enumerate(sent, 1):
        each.row = row
    file.add(sent)
    (found, again) = (file.read(0), file.read(2, 4))
    fields = ("command_id", "command_type", "session_id", "value", "time", "traceparent", "partition", "row")
    assert [[getattr(each, name) for name in fields] for each in found] == [
        [getattr(each, name) for name in fields] for each in sent
    ]
    assert [each.row for each in again] == [3, 4]
    assert {each.source for each in found} == {b"/me"}
    assert file.totals() == (5, sum(each.size for each in sent))
    file.remove([1, 3, 99])
    file.close()
    assert [each.row for each in SpoolFile(tmp_path / "1.spool").read(0)] == [2, 4, 5]


def test_a_spool_is_for_its_owner_only(tmp_path: Path) -> None:
    taken = claim(tmp_path / "spool", TOPIC, b"/me", fsync=False)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").iterdir()} == {0}
    taken.give_up(taken.own, empty=True)


def test_the_file_becomes_small_again_and_the_log_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "1.spool"
    SpoolFile.make(path, TOPIC, b"/me")
    file = SpoolFile(path)
    for start in range(0, 20_000, 1000):
        commands = [pending(f"{row}", value=b"x" * 1000) for row in range(start, start + 1000)]
        for row, each in enumerate(commands, start + 1):
            each.row = row
        file.add(commands)
        file.tidy(empty=False)
    assert path.with_name("1.spool-wal").stat().st_size < 40_000_000
    assert path.stat().st_size > 16_000_000
    for start in range(0, 20_000, 1000):
        file.remove(range(start + 1, start + 1001))
        file.tidy(empty=False)
    file.tidy(empty=True)
    assert path.stat().st_size < 1_000_000
    file.close()


def test_with_fsync_each_write_is_synced(tmp_path: Path) -> None:
    for fsync, level in ((True, 2), (False, 1)):
        taken = claim(tmp_path, TOPIC, b"/me", fsync=fsync)
        assert taken.own._writing.execute("pragma synchronous").fetchone() == (level,)
        taken.give_up(taken.own, empty=True)


# Who holds it.


def test_two_living_publishers_have_a_spool_each_and_a_third_takes_neither(tmp_path: Path) -> None:
    claims = [claim(tmp_path, TOPIC, b"/me", fsync=False) for _ in range(3)]
    assert len({one.own.path for one in claims}) == 3
    assert [one.left for one in claims] == [[], [], []]
    for one in claims:
        one.give_up(one.own, empty=True)
    assert [path.name for path in tmp_path.iterdir()] == ["directory.lock"]


def test_what_the_dead_left_is_taken_over_by_one_only_the_oldest_first(tmp_path: Path) -> None:
    for number in range(3):
        one = claim(tmp_path, TOPIC, b"/me", fsync=False)
        command = pending(f"{number}")
        command.row = 1
        one.own.add([command])
        for file in one.left:
            one.give_up(file, empty=False)
        one.give_up(one.own, empty=False)
    first = claim(tmp_path, TOPIC, b"/me", fsync=False)
    second = claim(tmp_path, TOPIC, b"/me", fsync=False)
    assert [file.read(0)[0].command_id for file in first.left] == ["0", "1", "2"]
    assert second.left == []


async def test_what_a_dead_publisher_left_empty_is_cleared_away(tmp_path: Path) -> None:
    for number in (1, 2):
        SpoolFile.make(tmp_path / f"{number:012d}.spool", TOPIC, b"/me")
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        assert publisher.stats().recovered == 0
        assert spool_in(tmp_path).name == "000000000003.spool"


def test_another_topics_spool_is_left_alone(tmp_path: Path) -> None:
    one = claim(tmp_path, "other.commands", b"/me", fsync=False)
    one.give_up(one.own, empty=False)
    assert claim(tmp_path, TOPIC, b"/me", fsync=False).left == []
    assert len(claim(tmp_path, "other.commands", b"/me", fsync=False).left) == 1


@pytest.mark.parametrize("content", [b"no database", b"", None])
def test_a_spool_that_can_not_be_read_is_kept_and_stops_nobody(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "000000000001.spool"
    if content is None:
        SpoolFile.make(path, TOPIC, b"/me")
        with sqlite3.connect(path) as connection:
            connection.execute("pragma user_version = 9")
    else:
        path.write_bytes(content)
    taken = claim(tmp_path, TOPIC, b"/me", fsync=False)
    assert (taken.left, path.exists()) == ([], True)
    assert str(path) in caplog.text
    assert taken.own.path.name == "000000000002.spool"


async def test_a_directory_that_can_not_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="can't be used"):
        await Publisher(NOWHERE, spool=tmp_path / "file" / "spool").start()
    with pytest.raises(SpoolError, match="can't be used"):
        SyncPublisher(NOWHERE, spool=tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"durability": "spool"}, "needs a directory"),
        ({"durability": "disk"}, "durability"),
        ({"on_full": "wait"}, "on_full"),
        ({"max_spool_bytes": 0}, "max_spool_bytes"),
        ({"max_buffer_count": -1}, "max_buffer_count"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], says: str) -> None:
    for make in (Publisher, SyncPublisher):
        with pytest.raises(ValueError, match=says):
            make(NOWHERE, **options)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_bytes"):
        Publisher(NOWHERE, max_bytes=3)  # type: ignore[call-arg]


# The publisher.


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
            await publisher.room()
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
        assert publisher.stats().spooled == 0
        await until(lambda: publisher.stats().spooled == 30)
        publisher.create("s", "n", {})
        await until(lambda: publisher.stats().spooled == 31)
        await publisher.close(0)


async def test_saved_waits_until_nothing_is_in_memory_alone(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, spool_after=3600) as publisher:
        for _ in range(100):
            publisher.create("s", "n", {})
        await publisher.saved()
        assert publisher.stats().spooled == 100
        await publisher.saved()
        await publisher.close(0)


async def test_saved_without_a_spool_is_refused() -> None:
    async with Publisher(NOWHERE) as publisher:
        with pytest.raises(ValueError, match="without a spool"):
            await publisher.saved()


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
        await publisher.room()
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
        assert publisher._landings == {}
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


# Ends of all kinds.

LEFT_OPEN = f"""
import asyncio, sys
from waypost import Publisher
async def main():
    publisher = await Publisher({NOWHERE!r}, spool=sys.argv[1], spool_after=3600).start()
    for number in range(40):
        print(publisher.create("s", "n", {{"number": number}}), flush=True)
    if sys.argv[2] == "stopped":
        asyncio.get_running_loop().stop()
        await asyncio.sleep(3600)
if sys.argv[2] == "stopped":
    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.run_forever()
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["finished", "stopped"])
def test_a_publisher_that_is_still_open_at_the_end_keeps_its_commands(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN, str(tmp_path), how],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 40
    assert kept(tmp_path) == done.stdout.split()


LEFT_OPEN_IN_A_THREAD = f"""
import sys
from waypost import SyncPublisher
import waypost.sync_publisher
waypost.sync_publisher._EXIT_SECONDS = 0.1
publisher = SyncPublisher({NOWHERE!r}, spool=sys.argv[1], spool_after=3600)
for number in range(40):
    print(publisher.create("s", "n", {{"number": number}}), flush=True)
"""


def test_a_sync_publisher_that_is_still_open_at_the_end_keeps_its_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN_IN_A_THREAD, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stdout.split()) == 40
    assert kept(tmp_path) == done.stdout.split()


FORKED = f"""
import os, sys, time
from waypost import SyncPublisher, PublisherClosedError
publisher = SyncPublisher({NOWHERE!r}, spool=sys.argv[1], durability="spool")
sent = [publisher.create("s", "n", {{}}) for _ in range(10)]
reading, writing = os.pipe()
if os.fork() == 0:
    try:
        publisher.create("s", "n", {{}})
    except PublisherClosedError:
        own = SyncPublisher({NOWHERE!r}, spool=sys.argv[1], durability="spool")
        own.create("s", "n", {{}})
        assert own.stats().recovered == 0, "the parent lives"
        os.write(writing, b"ok")
    os.close(writing)
    os.read(int(sys.argv[2]), 1)
    os._exit(0)
os.close(writing)
assert os.read(reading, 10) == b"ok"
print(*sent, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_neither_writes_to_the_parents_spool_nor_keeps_it_from_being_drained(
    tmp_path: Path,
) -> None:
    hold, release = os.pipe()
    try:
        parent = _run_forked(tmp_path, hold)
        # The parent is dead, its child lives on and holds nothing but its own.
        assert kept(tmp_path) == parent
    finally:
        os.close(release)
        os.close(hold)


def _run_forked(directory: Path, hold: int) -> list[str]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKED, str(directory), str(hold)], stdout=subprocess.PIPE, pass_fds=[hold]
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode().split()
        assert process.wait(30) == -9
        process.stdout.close()
    return line


async def test_a_publisher_from_before_a_fork_refuses_to_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        with monkeypatch.context() as patch:
            patch.setattr("waypost.publisher.os.getpid", lambda: 1)
            with pytest.raises(PublisherClosedError, match="fork"):
                await publisher.close()
        await publisher.close(0)


async def test_a_cancelled_close_still_keeps_everything(tmp_path: Path) -> None:
    publisher = await Publisher(NOWHERE, spool=tmp_path).start()
    sent = [publisher.create("s", "n", {}) for _ in range(10)]
    closing = asyncio.create_task(publisher.close(60))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert kept(tmp_path) == sent


def test_sqlite_is_loaded_only_with_a_spool() -> None:
    code = (
        "import sys, asyncio\nfrom waypost import Publisher\n"
        f"asyncio.run(Publisher({NOWHERE!r}).start())\nprint('sqlite3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
