"""A partition's log folded in memory: by shares, it is the same as at once; what does not fit is let go."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.support import workload

from waypost_worker.recovery.memory_fold import MemoryFold
from waypost_worker.recovery.shares import WHOLE, Share, spread_of

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


def folded(records: Sequence[Record], share: Share = WHOLE, halved_at: int | None = None) -> MemoryFold:
    fold = MemoryFold(0, 1, share)
    for at in range(0, len(records), 100):
        fold.take(records[at : at + 100])
        if at == halved_at:
            assert fold.halve()
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
    refused = {spread for _, _, spread in fold.rejected.values()}
    assert len({spread_of(name.encode()) for name in fold.sessions} | refused) == 1
    assert fold.share.high > fold.share.low
