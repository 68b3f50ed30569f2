"""The spool's files: what they hold, who may open them, who takes them over."""

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pending import pending
from tests.unit.spools import NOWHERE, TOPIC, kept, spool_in, until

from waypost import (
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.pending import Pending
from waypost.publisher.spool.buffer import SpooledBuffer, SpoolShare
from waypost.publisher.spool.directory import _alone, claim
from waypost.publisher.spool.file import SpoolFile
from waypost.publisher.spool.spooler import Spooler
from waypost.wire.event_types import EventType

NOBODY = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def test_what_is_added_is_read_back_as_it_was(tmp_path: Path) -> None:
    SpoolFile.make(tmp_path / "1.spool", TOPIC, b"/me")
    file = SpoolFile(tmp_path / "1.spool")
    sent = [pending(f"{number}", f"s-{number}", bytes([number])) for number in range(5)]
    sent[2] = Pending("2", EventType.CONFIGURE_DEFAULTS, None, b"{}", b"2026", b"00-trace", 7)
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


def left_in(directory: Path, topic: str = TOPIC) -> Path:
    """A spool that holds something and belongs to nobody."""
    one = claim(directory, topic, b"/me", fsync=False)
    command = pending("left")
    command.row = 1
    one.own.add([command])
    for file in one.left:
        one.give_up(file, empty=False)
    one.give_up(one.own, empty=False)
    return one.own.path


def test_one_that_lives_takes_over_what_belongs_to_nobody_for_a_while(tmp_path: Path) -> None:
    living, other = (claim(tmp_path, TOPIC, b"/me", fsync=False) for _ in range(2))
    assert living.newly_left(0) is None, "the other one lives"
    left_in(tmp_path, "other.commands")
    path = left_in(tmp_path)
    assert living.newly_left(3600) is None
    assert living.newly_left(3600) is None, "an hour has not gone by"
    found = living.newly_left(0)
    assert found is not None
    assert (found.path, [each.command_id for each in found.read(0)]) == (path, ["left"])
    assert other.newly_left(0) is None, "it has an owner now"
    living.give_up(found, empty=True)
    assert living.newly_left(0) is None


def test_one_that_is_started_comes_before_one_that_lives(tmp_path: Path) -> None:
    living = claim(tmp_path, TOPIC, b"/me", fsync=False)
    path = left_in(tmp_path)
    assert living.newly_left(3600) is None
    started = claim(tmp_path, TOPIC, b"/me", fsync=False)
    assert [file.path for file in started.left] == [path]
    assert living.newly_left(0) is None


def test_a_look_at_what_others_left_waits_for_nobody(tmp_path: Path) -> None:
    living = claim(tmp_path, TOPIC, b"/me", fsync=False)
    left_in(tmp_path)
    with _alone(tmp_path):
        assert living.newly_left(0) is None
    assert living.newly_left(0) is not None


def test_one_that_can_not_be_read_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    living = claim(tmp_path, TOPIC, b"/me", fsync=False)
    (tmp_path / "000000000009.spool").write_bytes(b"no database")
    assert [living.newly_left(0) for _ in range(3)] == [None, None, None]
    assert caplog.text.count("000000000009.spool can't be sent, and is kept") == 1


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
        ({"adopt_after": 0}, "adopt_after"),
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


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(mode)
    with pytest.raises(SpoolError, match=rf"writable by other users.*Run: chmod 700 {spool}"):
        claim(spool, TOPIC, b"/me", fsync=False)
    assert list(spool.iterdir()) == []
    spool.chmod(0o755)  # others may look at the names of files that they can't read
    assert claim(spool, TOPIC, b"/me", fsync=False).left == []


def test_both_publishers_say_at_the_start_that_others_can_write_the_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    async def start() -> None:
        await Publisher(NOWHERE, spool=tmp_path).start()

    with pytest.raises(SpoolError, match="chmod 700"):
        asyncio.run(start())
    with pytest.raises(SpoolError, match="chmod 700"):
        SyncPublisher(NOWHERE, spool=tmp_path)


@only_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(SpoolError, match="belongs to another user"):
        claim(tmp_path, TOPIC, b"/me", fsync=False)
    assert list(tmp_path.iterdir()) == []


@only_root
def test_a_spool_that_another_user_put_there_is_not_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs, linked = tmp_path / "000000000001.spool", tmp_path / "000000000002.spool"
    SpoolFile.make(theirs, TOPIC, b"/them")
    os.chown(theirs, NOBODY, NOBODY)
    linked.symlink_to(theirs)
    assert claim(tmp_path, TOPIC, b"/me", fsync=False).left == []
    assert caplog.text.count("not a file of this user") == 2


GOOD = {
    "id": "c",
    "type": "waypost.session.clear",
    "session": "s",
    "at": b"2026-11-30T12:00:00Z",
    "traceparent": None,
    "partition": None,
    "value": b"{}",
}
DAMAGE = {
    "a number as id": {"id": 7},
    "bytes as id": {"id": b"c"},
    "an empty id": {"id": ""},
    "a long id": {"id": "c" * 65},
    "a NUL in the id": {"id": "c\0"},
    "bytes as type": {"type": b"t"},
    "a number as session": {"session": 1.5},
    "a long session": {"session": "s" * 201},
    "text as time": {"at": "yesterday"},
    "no time": {"at": None},
    "a long time": {"at": b"1" * 1000},
    "a number as traceparent": {"traceparent": 3},
    "neither session nor partition": {"session": None},
    "both session and partition": {"partition": 0},
    "a negative partition": {"session": None, "partition": -1},
    "a partition beyond Kafka's": {"session": None, "partition": 2**31},
    "text as partition": {"session": None, "partition": "one"},
    "a number as value": {"value": 12},
    "text as value": {"value": "{}"},
    "no value": {"value": None},
    "a value larger than any command": {"value": b"0" * (16 * 1024 * 1024 + 1)},
}


def spoil(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as no publisher does, past the table's own rules."""
    with sqlite3.connect(path) as connection:
        connection.execute("drop table commands")
        connection.execute(
            "create table commands (row integer primary key, id, type, session, at, traceparent, partition, value)"
        )
        for number, row in enumerate(rows, 1):
            connection.execute(
                "insert into commands values (?, ?, ?, ?, ?, ?, ?, ?)", (number, *{**GOOD, **row}.values())
            )


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_row_that_is_no_command_is_set_aside_and_the_rest_is_read(
    tmp_path: Path, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "000000000001.spool"
    SpoolFile.make(path, TOPIC, b"/me")
    spoil(path, [{"id": "first"}, damage, {"id": "last"}])
    file = SpoolFile(path)
    assert file.totals()[0] == 3
    assert [each.command_id for each in file.read(0)] == ["first", "last"]
    count, size = file.take_set_aside()
    left, rest = file.totals()
    assert (count, left, file.take_set_aside()) == (1, 2, (0, 0))
    assert size > 0
    assert rest == sum(each.size for each in file.read(0))
    assert f"1 rows of the spool {path} are not commands" in caplog.text
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*), min(row) from damaged").fetchone() == (1, 2)


def test_text_that_is_not_utf_8_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "000000000001.spool"
    SpoolFile.make(path, TOPIC, b"/me")
    spoil(path, [{"id": "first"}, {}, {"id": "last"}])
    with sqlite3.connect(path) as connection:
        connection.execute("update commands set session = cast(x'ff41' as text) where row = 2")
    file = SpoolFile(path)
    assert [each.command_id for each in file.read(0)] == ["first", "last"]
    assert file.take_set_aside()[0] == 1


@pytest.mark.parametrize(
    "about", ["", "insert into about values (x'00', x'00')", "insert into about values ('t', 't')"]
)
def test_a_spool_that_does_not_say_whose_it_is_stops_nobody(
    tmp_path: Path, about: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "000000000001.spool"
    SpoolFile.make(path, TOPIC, b"/me")
    with sqlite3.connect(path) as connection:
        connection.executescript(f"drop table about; create table about (topic, source); {about}")
    assert claim(tmp_path, TOPIC, b"/me", fsync=False).left == []
    assert "does not say whose commands" in caplog.text


async def test_a_publisher_goes_on_behind_damaged_rows_and_keeps_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SpoolFile.make(tmp_path / "000000000001.spool", TOPIC, b"/me")
    spoil(tmp_path / "000000000001.spool", [{"value": 1}, {"id": "good"}, {"at": 7}])
    SpoolFile.make(tmp_path / "000000000002.spool", TOPIC, b"/me")
    spoil(tmp_path / "000000000002.spool", [{"id": 3}, {"session": b"s"}])
    async with Publisher(NOWHERE, spool=tmp_path, spool_after=0.1) as publisher:
        mine = publisher.create("s", "n", {})
        await until(lambda: publisher.stats().set_aside == 4)
        stats = publisher.stats()
        assert (stats.recovered, stats.accepted, stats.buffered, stats.spool_error) == (5, 1, 2, None)
        # All of the second file was damaged, so it is done with.
        await until(lambda: (tmp_path / "000000000002.damaged").exists())
        await publisher.close(0)
    assert kept(tmp_path) == ["good", mine]
    with sqlite3.connect(tmp_path / "000000000002.damaged") as connection:
        assert connection.execute("select id, session from damaged order by row").fetchall() == [
            (3, "s"),
            ("c", b"s"),
        ]
    assert "is kept in" in caplog.text


def test_a_damaged_row_of_its_own_does_not_stop_a_publisher(tmp_path: Path) -> None:
    claimed = claim(tmp_path, TOPIC, b"/me", fsync=False)
    spooler = Spooler(claimed, 1.0, 30.0, lambda: True)
    share = SpoolShare(claimed.own, 10_000_000, (0, 0), lambda: None)
    buffer = SpooledBuffer(8, 10_000_000, "raise", lambda: None, lambda _: None, share)
    spooler._buffer = buffer
    for number in range(20):
        buffer.put(pending(f"{number}", "s"))
        spooler._serve(quiet=False)
    assert buffer.stored > 10
    with sqlite3.connect(claimed.own.path) as connection:
        connection.execute("update commands set at = 'noon' where row in (15, 16)")
    buffer.set_partition_count(1)
    sent: list[str] = []
    while buffer.route(100):
        gone = buffer.acknowledge(0, len(buffer.take(0, 100, 1_000_000, {})))
        sent += [each.command_id for each in gone]
        buffer.settle(gone, lambda: None)
        spooler._serve(quiet=False)
    assert sent == [str(number) for number in range(20) if number + 1 not in (15, 16)]
    assert (len(buffer), buffer.set_aside_count, buffer.disk_count, buffer.disk_bytes) == (0, 2, 0, 0)
    claimed.give_up(claimed.own, empty=True)
    assert [path.name for path in tmp_path.glob("*.spool*")] == []
    assert (tmp_path / "000000000001.damaged").exists()
