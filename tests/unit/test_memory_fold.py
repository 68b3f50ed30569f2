"""A partition's log folded in memory: by shares, it is the same as at once; what does not fit is let go."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from tests.support import workload

from waypost.model.authority import Authority
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import NullEncoder
from waypost_worker.partition.ports import RejectedRow
from waypost_worker.recovery.memory_fold import MemoryFold
from waypost_worker.recovery.shares import WHOLE, Share, spread_of
from waypost_worker.recovery.verify.comparator import Comparator, Tally
from waypost_worker.recovery.verify.rows import StoredCommand, StoredPartition, StoredSession

HALF = WHOLE.first_half()


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def log(seed: int, count: int = 1500) -> list[Record]:
    """Everything in one partition."""
    wanted = workload.commands(seed, count, partitions=1, erasing=True)
    return [
        Record(offset, 1_764_000_000_000 + offset, one.key, one.value, one.headers)
        for offset, one in enumerate(wanted)
    ]


def folded(records: Sequence[Record], share: Share = WHOLE, halved_at: int | None = None) -> MemoryFold:
    fold = MemoryFold(0, 1, share)
    for at in range(0, len(records), 100):
        fold.take(records[at : at + 100])
        if at == halved_at:
            assert fold.halve()
    return fold


def state(fold: MemoryFold) -> tuple[object, ...]:
    sessions = {
        name: (session.counter, session.policy, session.entries, session.recent, session.erased_at)
        for name, session in fold.sessions.items()
        if name in fold.times
    }
    return sessions, fold.contents, fold.times, fold.rejected


def test_two_halves_are_the_whole() -> None:
    records = log(seed=5)
    whole = folded(records)
    halves = [folded(records, share) for share in (HALF, HALF.following(WHOLE.high))]
    for mine, *others in zip(state(whole), *(state(half) for half in halves), strict=True):
        assert all(len(other) > 1 for other in others), "each half must have something to say"
        assert {key: value for other in others for key, value in other.items()} == mine
    assert halves[0].state == halves[1].state == whole.state
    assert halves[0].anchor == whole.anchor


def test_what_is_let_go_in_the_middle_leaves_the_rest_as_it_is() -> None:
    records = log(seed=6)
    halved = folded(records, halved_at=800)
    assert 0 < len(halved.sessions) < len(folded(records).sessions)
    assert state(halved) == state(folded(records, halved.share))
    assert all(halved.share.holds(spread_of(name.encode())) for name in halved.sessions)


def test_it_is_halved_down_to_one_session_and_never_to_none() -> None:
    fold = folded(log(seed=7))
    sizes = [fold.size]
    while fold.halve():
        sizes.append(fold.size)
    assert sizes == sorted(sizes, reverse=True)
    assert 3 < len(sizes) < 20
    refused = {spread for _, _, spread, _ in fold.rejected.values()}
    assert len({spread_of(name.encode()) for name in fold.sessions} | refused) == 1
    assert fold.share.high > fold.share.low


def rejected_rows(count: int) -> list[RejectedRow]:
    batch = Batch(NullEncoder(0), {}, PartitionState())
    for record in broken(count):
        batch.add(decode(record, 0, 1))
    return batch.changes.rejected


def broken(count: int) -> list[Record]:
    return [Record(offset, 1_764_000_000_000, b"s%d" % offset, b"?", []) for offset in range(count)]


def differences(fold: MemoryFold, stored: Iterable[int], below: int) -> tuple[list[str], int]:
    """What a strict comparison finds if these rejected commands are stored, and how many it takes for purged."""
    rows = rejected_rows(20)
    tally = Tally(limit=100)
    comparator = Comparator(fold, tally, strict=True, rejected_below=below)
    for offset in stored:
        comparator.rejected(rows[offset])
    comparator.finish()
    return [difference.key for difference in tally.found], tally.purged


@pytest.mark.parametrize("share", [WHOLE, HALF])
def test_rejected_commands_that_made_room_are_not_missing_and_all_others_are(share: Share) -> None:
    fold = MemoryFold(0, 1, share)
    fold.take(broken(20))
    held = sorted(fold.rejected)
    middle = len(held) // 2
    below, newest = held[middle], held[middle:]
    assert differences(fold, newest, below) == ([], middle)
    for removed in newest:
        rest = [offset for offset in newest if offset != removed]
        assert differences(fold, rest, below) == ([f"0/{removed}"], middle)
    assert differences(fold, [], below) == ([f"0/{offset}" for offset in newest], middle)
    assert differences(fold, [held[0], *newest], below) == ([f"0/{held[0]}"], middle - 1)


def test_a_fold_of_all_sessions_knows_which_rejected_commands_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("waypost_worker.partition.kept.PARTS", 2)
    monkeypatch.setattr("waypost_worker.partition.kept.PART_ROWS", 3)
    fold = MemoryFold(0, 1, WHOLE)
    for start in (0, 7, 14):
        fold.take(broken(20)[start : start + 7])
    assert fold.window is not None
    assert fold.window.parts == ((15, 3), (18, 2))
    stored = StoredPartition(1, 20, fold.anchor, -1, 0, RetentionPolicy(), [], Authority(), fold.window)
    for window, found in ((fold.window, 0), (fold.window._replace(parts=((18, 2),)), 1)):
        tally = Tally(limit=1)
        Comparator(fold, tally, strict=False, rejected_below=window.below).partition(
            stored._replace(rejected_window=window)
        )
        assert tally.count == found
    assert fold.halve()
    assert fold.window is None
    assert MemoryFold(0, 1, HALF).window is None


def test_a_row_that_was_kept_whole_by_an_earlier_version_is_the_same() -> None:
    fold = MemoryFold(0, 1, WHOLE)
    record = Record(0, 1_764_000_000_000, b"k" * 2000, b"?" * 3_000_000, [("h", b"x" * 100_000)])
    fold.take([record])
    batch = Batch(NullEncoder(0), {}, PartitionState())
    batch.add(decode(record, 0, 1))
    (cut,) = batch.changes.rejected
    assert cut.value_bytes == 3_000_000
    whole = cut._replace(
        key=record.key, value=record.value, headers=record.headers, value_bytes=None, headers_bytes=None
    )
    for stored in (cut, whole):
        tally = Tally(limit=10)
        comparator = Comparator(fold, tally, strict=True, rejected_below=0)
        comparator.rejected(stored)
        comparator.finish()
        assert tally.found == []
    tally = Tally(limit=10)
    Comparator(fold, tally, strict=True, rejected_below=0).rejected(whole._replace(value=b"!" * 3_000_000))
    assert len(tally.found) == 1


def test_an_erasure_takes_the_rejected_commands_before_it_and_no_others() -> None:
    at = 1_764_000_000_000
    erase = command_headers("erase", b"/t", EventType.ERASE.wire, workload.TIME)
    records = [
        Record(0, at, b"s", b"{", []),
        Record(1, at, b"t", b"{", []),
        Record(2, at, b"s", b"{}", erase),
        Record(3, at, b"s", b"{", []),
    ]
    fold = MemoryFold(0, 1, WHOLE)
    fold.take(records)
    batch = Batch(NullEncoder(0), {}, PartitionState())
    for record in records:
        batch.add(decode(record, 0, 1))
    rows = {row.offset: row for row in batch.changes.rejected}
    tombstone = StoredSession("s", 0, None, 0, at * 1000, at * 1000, at * 1000)

    def found(*offsets: int, session: StoredSession = tombstone) -> list[str]:
        tally = Tally(10)
        comparator = Comparator(fold, tally, strict=True, rejected_below=0)
        comparator.session(session)
        comparator.command(StoredCommand("s", 2, "erase", None))
        for offset in offsets:
            comparator.rejected(rows[offset])
        comparator.finish()
        return [f"{one.table} {one.key}: {one.text}" for one in tally.found]

    assert found(1, 3) == []
    assert found(1) == ["rejected_commands 0/3: the row is missing in Postgres"]
    assert found(0, 1, 3) == [
        "rejected_commands 0/0: the row is in Postgres and should not be: its session was erased later"
    ]
    (alive,) = found(1, 3, session=tombstone._replace(erased_at=None))
    assert alive.startswith("sessions s: erased_at is None, the log says 2025-")


def test_rejected_commands_of_former_topics_go_with_their_session_only() -> None:
    at = 1_764_000_000_000
    erase = command_headers("erase", b"/t", EventType.ERASE.wire, workload.TIME)
    broken_row, *_ = rejected_rows(1)
    # What an adopted database holds: all offsets are negative.
    adopted = [
        broken_row._replace(offset=offset, session_id=session_id, key=key)
        for offset, session_id, key in (
            (-30, "s", b"s"),
            (-20, "t", b"t"),
            (-10, None, None),
            (-1, "t", b"t"),
        )
    ]
    fold = MemoryFold(0, 1, WHOLE)
    for row in adopted:
        fold.keep_rejected(row)
    fold.take([Record(0, at, b"s", b"{}", erase)])

    def found(*rows: RejectedRow) -> list[str]:
        tally = Tally(10)
        comparator = Comparator(fold, tally, strict=True, rejected_below=0)
        comparator.session(StoredSession("s", 0, None, 0, at * 1000, at * 1000, at * 1000))
        comparator.command(StoredCommand("s", 0, "erase", None))
        for row in rows:
            comparator.rejected(row)
        comparator.finish()
        return [f"{one.table} {one.key}: {one.text}" for one in tally.found]

    assert found(*adopted[1:]) == []
    assert found(*adopted[2:]) == ["rejected_commands 0/-20: the row is missing in Postgres"]
    assert found(*adopted) == [
        "rejected_commands 0/-30: the row is in Postgres and should not be: its session was erased later"
    ]
