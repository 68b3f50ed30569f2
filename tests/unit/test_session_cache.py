"""What a worker remembers of sessions is bounded, whatever it is asked for."""

from waypost.model.index import Entry, Session
from waypost_worker.partition.fold import SessionCache


def remembered(cache: SessionCache, *names: str, entries: int = 1) -> None:
    for name in names:
        live = [Entry(number, "n", 0, 0, number) for number in range(1, entries + 1)]
        cache.sessions[name] = Session.restore(name, entries, None, live, [])
    cache.touch(names)


def test_the_longest_unused_session_goes_first() -> None:
    cache = SessionCache(lambda: 30)
    remembered(cache, "a", "b", "c")
    cache.touch(["a"])
    remembered(cache, "d")
    assert list(cache.sessions) == ["c", "a", "d"]


def test_a_session_that_grew_counts_for_more() -> None:
    cache = SessionCache(lambda: 30)
    remembered(cache, "a", "b", "c")
    remembered(cache, "c", entries=20)
    assert list(cache.sessions) == ["c"]


def test_one_session_stays_however_large_it_is() -> None:
    cache = SessionCache(lambda: 10)
    remembered(cache, "large", entries=100)
    assert list(cache.sessions) == ["large"]


def test_a_smaller_share_takes_effect_at_the_next_batch() -> None:
    """An owner's share of its worker's memory shrinks when the worker gets more partitions."""
    shares = [100]
    cache = SessionCache(lambda: shares[-1])
    remembered(cache, *"abcdefghij")
    assert len(cache.sessions) == 10
    shares.append(20)
    cache.touch(["j"])
    assert list(cache.sessions) == ["i", "j"]
