"""A partition's log folded in memory: by shares, it is the same as at once; what does not fit is let go."""

from collections.abc import Sequence
from typing import NamedTuple

from tests import workload

from waypost_worker.recovery.memory import MemoryFold
from waypost_worker.recovery.sampling import WHOLE, Share, spread_of

HALF = WHOLE.first_half()


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def log(seed: int, count: int = 1500) -> list[Record]:
    """Everything in one partition."""
    wanted = workload.commands(seed, count, partitions=1)
    return [
        Record(offset, 1_764_000_000_000 + offset, one.key, one.value, one.headers)
        for offset, one in enumerate(wanted)
    ]


def folded(records: Sequence[Record], share: Share = WHOLE, narrowed: Share | None = None) -> MemoryFold:
    fold = MemoryFold(0, 1, share)
    for at in range(0, len(records), 100):
        fold.take(records[at : at + 100])
        if narrowed is not None and at > len(records) // 2:
            fold.narrow(narrowed)
    return fold


def state(fold: MemoryFold) -> tuple[object, ...]:
    sessions = {
        name: (session.counter, session.policy, session.entries, session.recent)
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
    assert halves[0].defaults == halves[1].defaults == whole.defaults
    assert halves[0].anchor == whole.anchor


def test_what_is_let_go_in_the_middle_leaves_the_rest_as_it_is() -> None:
    records = log(seed=6)
    narrowed = folded(records, narrowed=HALF)
    assert state(narrowed) == state(folded(records, HALF))
    assert narrowed.size <= folded(records).size
    assert all(HALF.holds(spread_of(name.encode())) for name in narrowed.sessions)


def test_its_size_is_what_it_holds() -> None:
    fold = folded(log(seed=7))
    before = fold.size
    fold.narrow(Share(0, 1))
    assert (fold.sessions, fold.contents, fold.times, fold.rejected) == ({}, {}, {}, {})
    assert (before > 50_000, fold.size) == (True, 0)
