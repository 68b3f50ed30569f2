"""The spool's files: what they hold, who may open them, who takes them over."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.pending import pending
from tests.unit.spools import NOWHERE, TOPIC, spool_in

from waypost import (
    Publisher,
    SpoolError,
    SyncPublisher,
)
from waypost.publisher.pending import Pending
from waypost.publisher.spool.directory import _alone, claim
from waypost.publisher.spool.file import SpoolFile
from waypost.wire.event_types import EventType


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
