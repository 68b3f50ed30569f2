"""A large session decides exactly as if it looked at all of its checkpoints, whatever came and went before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from hypothesis import event, given, settings
from hypothesis import strategies as st

from waypost.model import index
from waypost.model.commands import (
    Action,
    Command,
    Configure,
    Create,
    Delete,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.decisions import Unchanged
from waypost.model.index import Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve

NAMES = ["a", "b", "c", "d", "e"]


@contextmanager
def large_from(size: int) -> Iterator[None]:
    with patch.object(index, "LARGE", size):
        yield


def any_action(chance: random.Random, session: Session, pinning: float) -> Action:
    """A command on a session that has some dozens of checkpoints, many of them pinned if ``pinning`` is high."""
    live = session.live_in_order()
    at = f"s:{chance.choice(live)}" if live else "s:1"
    drawn = chance.random()
    if drawn < 0.4:
        return Create(chance.choice(NAMES), b"{}")
    if drawn < 0.4 + pinning:
        return Pin(at)
    if drawn < 0.5 + pinning:
        return chance.choice([Unpin(at), Unpin(at), Delete(at), Rollback(at, chance.random() < 0.05)])
    if drawn < 0.53 + pinning:
        fields = {
            "max_checkpoints": chance.randint(2, 50),
            "compress_after": chance.randint(1, 50),
            "keep_recent": chance.randint(0, 40),
            "max_age": chance.choice([None, chance.randint(1, 100)]),
        }
        return Configure(tuple((name, fields[name]) for name in fields if chance.random() < 0.6))
    if drawn < 0.6 + pinning:
        items = tuple(
            ImportItem(
                chance.choice([f"s:{chance.randint(1, session.counter + 5)}", "other:1", "other:2"]),
                chance.choice(NAMES),
                0,
                b"{}",
            )
            for _ in range(chance.choice([1, 1, 2, 3, 20]))
        )
        return Import(items, chance.choice(["skip", "replace", "replace", "reject"]))
    return Create(chance.choice(NAMES), b"{}")


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.2, 0.35]), st.sampled_from([0, 8]))
def test_both_ways_decide_the_same(seed: int, pinning: float, large: int) -> None:
    chance = random.Random(seed)
    looking, indexed = Session("s"), Session("s")
    default, now = RetentionPolicy(max_checkpoints=50, compress_after=50), 1_000
    for position in range(300):
        now += chance.choice([0, 0, 1, 2, 10, -5])
        if chance.random() < 0.02:
            default = RetentionPolicy(chance.randint(2, 60), chance.randint(1, 60), chance.randint(0, 30))
        action = any_action(chance, looking, pinning)
        command = Command(f"c-{position}", position, 0, now, action)
        with large_from(10**9):
            wanted = decide(looking, command, default)
        with large_from(large):
            found = decide(indexed, command, default)
            again = decide(indexed, command, default)
        assert found == again == wanted, (position, command)
        if not isinstance(wanted, Unchanged):
            with large_from(10**9):
                evolve(looking, command, wanted)
            with large_from(large):
                evolve(indexed, command, found)
            if wanted.removed:
                event(f"{type(wanted).__name__} removes")
        assert indexed.live() == looking.live()
        assert indexed.pins() == sum(entry.pinned for entry in looking.live())
        if len(looking) > 1:
            with large_from(10**9):
                lowest = looking.lowest_to_drop()
            with large_from(large):
                assert indexed.lowest_to_drop() == lowest


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_what_is_outdated_in_the_index_does_not_pile_up(seed: int) -> None:
    chance = random.Random(seed)
    session = Session("s")
    policy = RetentionPolicy(
        max_checkpoints=40, compress_after=10_000
    )  # no rule about names or age: nobody looks
    with large_from(0):
        for position in range(2_000):
            action: Action = Create(chance.choice(NAMES), b"{}")
            if position % 3 and len(session):
                at = f"s:{chance.choice(session.live_in_order())}"
                action = Pin(at) if position % 3 == 1 else Unpin(at)
            command = Command(None, position, 0, position, action)
            decision = decide(session, command, policy)
            if not isinstance(decision, Unchanged):
                evolve(session, command, decision)
        retention = session.retention_index()
    assert retention is not None
    assert len(retention._ages) + len(retention._superseded) <= 4 * len(session) + 70
