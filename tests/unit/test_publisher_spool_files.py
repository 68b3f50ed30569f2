"""The spool's files: what they hold, who may open them, who takes them over."""

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pending import TIME, pending
from tests.unit.spools import NOWHERE, TOPIC, append, claimed, give_all_up, kept, logs, names, unread

from waypost import (
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.pending import Pending
from waypost.publisher.spool import record
from waypost.publisher.spool.watermark import Watermark
from waypost.wire.event_types import EventType

NOBODY = 65534
OLD_SPOOL = Path(__file__).parents[1] / "golden" / "0.1" / "spool.sqlite"
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
FIELDS = ("command_id", "command_type", "session_id", "value", "time", "traceparent", "partition", "row")
COMMANDS = [
    pending("0", "s-0", b"{}"),
    pending("1", "é" * 200, b"\n\n\x00\xff\xf5wps"),
    Pending("2", EventType.CONFIGURE_DEFAULTS, None, b"{}", TIME, b"00-trace", 7),
    pending("3", "s-3", b"x" * 100_000),
    pending("4", "s-4", b""),
]


def fields(commands: list[Pending]) -> list[list[object]]:
    return [[getattr(each, name) for name in FIELDS] for each in commands]


def left_in(directory: Path, *names: str, topic: str = TOPIC) -> Path:
    """A spool that holds something and belongs to nobody; its only file."""
    taken = claimed(directory, topic)
    for name in names:
        append(taken.own, pending(name))
    path = taken.own.segments[-1].path
    give_all_up(taken)
    return path


# What they hold.


def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    taken = claimed(tmp_path)
    append(taken.own, *COMMANDS[:3])
    for each in COMMANDS[3:]:
        append(taken.own, each)
    give_all_up(taken)
    (left,) = claimed(tmp_path).left
    found = unread(left)
    assert fields(found) == fields(COMMANDS)
    assert [each.row for each in found] == [1, 2, 3, 4, 5]
    assert {each.source for each in found} == {b"/test"}
    assert left.topic == TOPIC


def test_the_format_stays_as_it_was_released() -> None:
    command = Pending("c-1", "t", "s", b"{}", b"2026", b"00-1")
    assert [
        record.of_file("waypost.commands", b"/me"),
        record.of_command(command, 7, 1),
        record.of_dropped([3, 4]),
    ] == [
        bytes.fromhex("f5777073a5137a862400000000000000") + b"waypost-spool\n2\nwaypost.commands\n/me",
        bytes.fromhex("f5777073459d09e61600000002000000") + b"7\n1\nc-1\nt\ns\n\n2026\n00-1{}",
        bytes.fromhex("f577707396e571600b00000000000000") + b"dropped\n3\n4",
    ]


def test_a_spool_is_for_its_owner_only(tmp_path: Path) -> None:
    left_in(tmp_path / "spool", "a")
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").iterdir()} == {0}


@pytest.mark.parametrize("lost", [1, 20, 150, 151, 160])
def test_a_write_that_was_cut_short_at_the_end_was_never_accepted(
    tmp_path: Path, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_in(tmp_path, "a", "b")
    os.truncate(path, path.stat().st_size - lost)
    length = len(record.of_command(pending("b"), 2))
    assert kept(tmp_path) == (["a"] if lost <= length else [])
    assert caplog.text == ""


def test_a_call_with_several_commands_is_accepted_whole_or_not_at_all(tmp_path: Path) -> None:
    taken = claimed(tmp_path)
    append(taken.own, pending("a"))
    size = taken.own.segments[-1].size
    append(taken.own, *(pending(name) for name in "bcd"))
    path = taken.own.segments[-1].path
    end = taken.own.segments[-1].size
    give_all_up(taken)
    whole = path.read_bytes()
    for cut in range(size, end):
        path.write_bytes(whole[:cut])
        assert kept(tmp_path) == ["a"]
    path.write_bytes(whole)
    assert kept(tmp_path) == ["a", "b", "c", "d"]


def test_what_says_that_a_command_was_given_up_stays_as_long_as_the_command(tmp_path: Path) -> None:
    taken = claimed(tmp_path, segment_bytes=1)  # a file for each call
    waits, given_up, last = (pending(name) for name in "abc")
    append(taken.own, waits, given_up)
    taken.own.drop([given_up])
    taken.own.segments[0].live -= 1
    append(taken.own, last)
    taken.own.tidy(ended=False, fsync=False)
    give_all_up(taken)
    assert kept(tmp_path) == ["a", "c"]


@pytest.mark.parametrize("broken", ["magic", "checksum", "length", "head", "value", "all"])
def test_a_damaged_record_is_set_aside_and_stops_nothing(
    tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_in(tmp_path, "a", "b", "c")
    data = bytearray(path.read_bytes())
    start = data.index(record.of_command(pending("b"), 2))
    length = len(record.of_command(pending("b"), 2))
    at = {"magic": 0, "checksum": 5, "length": 14, "head": 20, "value": length - 1}.get(broken)
    if at is None:
        data[start : start + length] = bytes(length)
    else:
        data[start + at] ^= 0x55
    path.write_bytes(data)
    taken = claimed(tmp_path)
    (left,) = taken.left
    assert (left.damaged, left.live, [each.command_id for each in unread(left)]) == (1, 2, ["a", "c"])
    assert f"{path} is damaged in 1 places" in caplog.text
    assert path.with_suffix(".damaged").read_bytes() == data[start : start + length]


async def test_a_publisher_counts_what_is_damaged_and_sends_the_rest(tmp_path: Path) -> None:
    for name in ("ab", "cd"):
        path = left_in(tmp_path, *name)
        data = path.read_bytes()
        length = len(record.of_command(pending("b"), 2))
        path.write_bytes(data[:-length] + bytes(length))
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        mine = publisher.create("s", "n", {})
        stats = publisher.stats()
        assert (stats.recovered, stats.accepted, stats.set_aside, stats.buffered) == (4, 1, 2, 3)
        await publisher.close(0)
    assert kept(tmp_path) == ["a", "c", mine]


async def test_damage_while_it_runs_is_set_aside_too(tmp_path: Path) -> None:
    async with Publisher(NOWHERE, spool=tmp_path, max_buffer_count=4) as publisher:
        sent = [publisher.create("s", "n", {"number": number}) for number in range(20)]
        (path,) = logs(tmp_path)
        data = bytearray(path.read_bytes())
        data[data.index(sent[10].encode())] ^= 1
        path.write_bytes(data)
        buffer, found = publisher._buffer, []
        buffer.set_partition_count(1)
        while len(buffer):
            buffer.route(1)
            gone = buffer.acknowledge(0, len(buffer.take(0, 1, 10**9, {})))
            buffer.settle(0, gone, lambda: None)
            found += [each.command_id for each in gone]
            await asyncio.sleep(0)
        assert found == sent[:10] + sent[11:]
        stats = publisher.stats()
        assert (stats.set_aside, stats.buffered, stats.spooled_bytes, stats.spool_error) == (1, 0, 0, None)
        assert await publisher.close(0) == 0
    assert names(tmp_path) == ["000000000001-000001.damaged", "directory.lock"]


def test_damaged_entries_of_a_watermark_count_for_nothing(tmp_path: Path) -> None:
    watermark = Watermark(tmp_path / "w")
    watermark.advance(3, 0, 7)
    watermark.advance(3, 2, 9)
    watermark.advance(3, 2, 8)  # never back
    watermark.close()
    again = Watermark(tmp_path / "w")
    assert [again.covers(row, None, 2) for row in (9, 10)] == [True, False]
    assert [again.covers(row, None, 0) for row in (7, 8)] == [True, False]
    again.close()
    data = bytearray((tmp_path / "w").read_bytes())
    data[32 + 9] ^= 1
    (tmp_path / "w").write_bytes(data)
    damaged = Watermark(tmp_path / "w")
    assert (damaged.covers(1, None, 2), damaged.covers(7, None, 0)) == (False, True)
    damaged.advance(3, 2, 4)
    damaged.close()
    assert Watermark(tmp_path / "w").covers(4, None, 2)
    assert (tmp_path / "w").stat().st_size == 4096


@pytest.mark.parametrize("content", [b"no spool", b"\0" * 5000])
def test_a_spool_that_cannot_be_read_is_kept_and_stops_nobody(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = left_in(tmp_path, "a")
    path.write_bytes(content)
    taken = claimed(tmp_path)
    assert (taken.left, path.read_bytes()) == ([], content)
    assert "000000000001 can't be sent, and is kept: it does not say which topic" in caplog.text
    assert taken.own.number == 2


def test_a_later_format_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = left_in(tmp_path, "a")
    first = record.frame(b"waypost-spool\n3\ntopic\nsource")
    path.write_bytes(first + path.read_bytes())
    assert claimed(tmp_path).left == []
    assert "has format 3, and this version of waypost reads 2" in caplog.text


# Who holds it.


def test_two_living_publishers_have_a_spool_each_and_a_third_takes_neither(tmp_path: Path) -> None:
    claims = [claimed(tmp_path) for _ in range(3)]
    assert len({one.own.number for one in claims}) == 3
    assert [one.left for one in claims] == [[], [], []]
    for one in claims:
        give_all_up(one)
    assert [path.name for path in tmp_path.iterdir()] == ["directory.lock"]


def test_what_the_dead_left_is_taken_over_by_one_only_the_oldest_first(tmp_path: Path) -> None:
    for number in range(3):
        left_in(tmp_path, f"{number}")
    first = claimed(tmp_path)
    second = claimed(tmp_path)
    assert [unread(left)[0].command_id for left in first.left] == ["0", "1", "2"]
    assert second.left == []


def test_what_a_dead_publisher_left_empty_is_cleared_away(tmp_path: Path) -> None:
    path = left_in(tmp_path, "a")
    taken = claimed(tmp_path)
    (left,) = taken.left
    left.watermark.advance(1, 0, 1)
    left.close()
    for suffix in ("lock", "watermark"):  # of one that died before it had a file
        (tmp_path / f"000000000009.{suffix}").touch()
    taken.locks[left].release()
    again = claimed(tmp_path)
    assert (again.left, path.exists()) == ([], False)
    assert {int(each.name[:12]) for each in tmp_path.glob("0*")} == {taken.own.number, again.own.number}


def test_another_topics_spool_is_left_alone(tmp_path: Path) -> None:
    left_in(tmp_path, "a", topic="other.commands")
    mine = claimed(tmp_path)
    assert mine.left == []
    assert len(claimed(tmp_path, "other.commands").left) == 1


async def test_a_directory_that_cannot_be_made_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="can't be used"):
        await Publisher(NOWHERE, spool=tmp_path / "file" / "spool").start()
    with pytest.raises(SpoolError, match="can't be used"):
        SyncPublisher(NOWHERE, spool=tmp_path / "file" / "spool")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"on_full": "wait"}, "on_full"),
        ({"max_spool_bytes": 0}, "max_spool_bytes"),
        ({"max_buffer_count": -1}, "max_buffer_count"),
        ({"max_buffer_bytes": float("nan")}, "max_buffer_bytes"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], says: str) -> None:
    for make in (Publisher, SyncPublisher):
        with pytest.raises(ValueError, match=says):
            make(NOWHERE, **options)


@pytest.mark.parametrize(
    "option", [{"durability": "spool"}, {"durability": "memory"}, {"spool_after": 2.0}, {"adopt_after": 30.0}]
)
def test_options_of_the_last_release_have_no_effect_and_a_warning(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    (name,) = option
    with pytest.warns(DeprecationWarning, match=f"'{name}' of Publisher has no effect"):
        Publisher(NOWHERE, spool=tmp_path, **option)
    with (
        pytest.warns(DeprecationWarning, match=f"'{name}' of SyncPublisher has no effect"),
        SyncPublisher(NOWHERE, **option) as publisher,
    ):
        assert publisher.close(0) == 0


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="max_bytes"):
        Publisher(NOWHERE, max_bytes=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o755, 0o710])
def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(mode)
    with pytest.raises(SpoolError, match=rf"open to other users.*Run: chmod 700 {spool}"):
        claimed(spool)
    assert list(spool.iterdir()) == []
    spool.chmod(0o700)
    assert claimed(spool).left == []


def test_both_publishers_say_at_the_start_that_the_directory_is_open_to_others(tmp_path: Path) -> None:
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
        claimed(tmp_path)
    assert list(tmp_path.iterdir()) == []


@only_root
def test_a_spool_that_another_user_put_there_is_not_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = left_in(tmp_path, "a")
    os.chown(theirs, NOBODY, NOBODY)
    (tmp_path / "000000000002-000001.log").symlink_to(theirs)
    assert claimed(tmp_path).left == []
    assert caplog.text.count("not a file of this user") == 2


# Spools of version 0.1.


def old_spool(directory: Path, change: str = "") -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "000000000001.spool"
    shutil.copy(OLD_SPOOL, path)
    with sqlite3.connect(path) as connection:
        connection.executescript(change)
    connection.close()
    return path


async def test_what_version_0_1_left_is_sent_first(tmp_path: Path) -> None:
    old_spool(tmp_path)
    async with Publisher(NOWHERE, spool=tmp_path) as publisher:
        assert publisher.stats().recovered == 3
        mine = publisher.create("s", "n", {})
        await publisher.close(0)
    assert not [name for name in names(tmp_path) if "spool" in name]
    taken = claimed(tmp_path)
    found = unread(taken.left[0])
    assert fields(found) == [
        ["c-2", "waypost.checkpoint.pin", "séssion-2", b'{"checkpoint_id":"x:1"}', TIME, None, None, 2],
        ["c-3", "waypost.defaults.configure", None, b'{"max_checkpoints":7}', TIME, None, 2, 3],
        [
            "c-4",
            "waypost.checkpoint.create",
            "session-1",
            b'{"name":"n","data":{"step":2}}',
            TIME,
            None,
            None,
            4,
        ],
    ]
    assert {each.source for each in found} == {b"/golden"}
    assert [each.command_id for each in unread(taken.left[1])] == [mine]


def test_one_that_was_turned_into_a_log_and_not_removed_is_not_sent_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError("not now")

    path = old_spool(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        taken = claimed(tmp_path)
        assert taken.left == []
    assert "not now" in caplog.text
    assert path.exists()
    assert kept(tmp_path) == ["c-2", "c-3", "c-4"]
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("pragma user_version = 9", "has format 9"),
        ("drop table about; create table about (topic, source)", "does not say which topic"),
        ("drop table commands", "can't be read"),
    ],
)
def test_an_old_spool_that_cannot_be_read_is_kept(
    tmp_path: Path, change: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = old_spool(tmp_path, change)
    assert claimed(tmp_path).left == []
    assert path.exists()
    assert says in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        "id = x'37'",
        "id = ''",
        "id = 'c' || char(10)",
        "type = x'00'",
        "session = x'31'",
        "session = cast(x'ff41' as text)",
        "at = 'yesterday'",
        "at = zeroblob(1000)",
        "traceparent = 3",
        "session = null",
        "partition = 0",
        "session = null, partition = -1",
        "session = null, partition = 'one'",
        "value = 12",
    ],
)
def test_an_invalid_row_of_an_old_spool_is_kept_and_the_rest_is_sent(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = "create table loose as select * from commands; drop table commands; alter table loose rename to commands;"
    old_spool(tmp_path, f"{rules} update commands set {change} where row = 2")
    assert kept(tmp_path) == ["c-3", "c-4"]
    assert "row 2 of the spool" in caplog.text
    with sqlite3.connect(tmp_path / "000000000001.damaged") as connection:
        assert connection.execute("select count(*) from commands").fetchone() == (3,)
    connection.close()
