"""Retention in a large session: it removes what a look at all checkpoints would remove, without looking at them."""

from typing import NoReturn

import pytest
from tests.unit.life import Life, item

from waypost.model import index, session
from waypost.model.commands import Action, Command, Configure, Create, Delete, Import, Pin, Rollback, Unpin
from waypost.model.decisions import Accepted
from waypost.model.index import LARGE, MANY, Entry, Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide

SECOND = 1_000_000
SIZE = 400
LATELY, NOW = 1_000, 1_050
# Nothing but the named rule applies.
UNLIMITED = RetentionPolicy(1_000, 1_000)
CAP = RetentionPolicy(SIZE, 1_000)
NAMES = RetentionPolicy(1_000, 100)
AGE = RetentionPolicy(1_000, 1_000, max_age=100 * SECOND)


def large(policy: RetentionPolicy, *pinned: int) -> Life:
    """A life of 400 checkpoints: 1 to 3 are too old for AGE, 10 and 20 have one name, the others one of their own."""
    life = Life(policy)
    life.session = Session.restore(
        "s",
        SIZE,
        None,
        [
            Entry(
                number,
                "twice" if number in (10, 20) else f"name-{number}",
                taken_at=0,
                recorded_at=(0 if number <= 3 else LATELY) * SECOND,
                position=number,
                command_id=f"made-{number}",
                pinned=number in pinned,
            )
            for number in range(1, SIZE + 1)
        ],
        [],
    )
    life.position = SIZE
    return life


def removed(life: Life, action: Action, *, looking: bool) -> tuple[int, ...]:
    """What the action would remove: decided by a look at all checkpoints, or with each such look forbidden."""

    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError("it looked at all checkpoints")

    command = Command("probe", life.position + 1, 0, NOW * SECOND, action)
    with pytest.MonkeyPatch.context() as patched:
        if looking:
            patched.setattr(index, "LARGE", 10**9)
        else:
            patched.setattr(Session, "live", forbidden)
            patched.setattr(session, "retention", forbidden)
            patched.setattr(session, "removed_by_age", forbidden)
        decision = decide(life.session, command, life.default)
    assert isinstance(decision, Accepted), decision
    return decision.removed


def create(name: str = "new") -> Create:
    return Create(name, b"{}")


def configure(**changes: int) -> Configure:
    return Configure(tuple(changes.items()))


def imported(*ids: str) -> Import:
    return Import(tuple(item(id, f"import of {id}") for id in ids), "replace")


class TestWhatACommandRemoves:
    @pytest.mark.parametrize(
        ("policy", "pinned", "action", "expected"),
        [
            # The cap spares the first and the pinned, and counts only what age leaves.
            (CAP, [2, 3], create(), (4,)),
            (RetentionPolicy(SIZE, 1_000, max_age=2_000 * SECOND), [], create(), (2,)),
            (RetentionPolicy(398, 1_000, max_age=100 * SECOND), [], create(), (1, 2, 3)),
            (RetentionPolicy(397, 1_000, max_age=100 * SECOND), [], create(), (1, 2, 3, 5)),
            (UNLIMITED, [], configure(max_checkpoints=395), (2, 3, 4, 5, 6)),
            # Names: the later one replaces the earlier one, unless it is itself among the most recent.
            (NAMES, [], create(), (10,)),
            (NAMES, [10], create(), ()),
            (RetentionPolicy(1_000, 100, keep_recent=381), [], create(), (10,)),
            (RetentionPolicy(1_000, 100, keep_recent=382), [], create(), ()),
            (UNLIMITED, [], configure(compress_after=100), (10,)),
            # Age: all that are too old, except the pinned.
            (AGE, [], create(), (1, 2, 3)),
            (AGE, [2], create(), (1, 3)),
            (UNLIMITED, [], configure(max_age=100 * SECOND), (1, 2, 3)),
            # Age as the command leaves it: without the deleted, with the pinned as they are then.
            (AGE, [], Delete("s:200"), (1, 2, 3)),
            (AGE, [], Delete("s:2"), (1, 3)),
            (AGE, [], Rollback("s:200"), (1, 2, 3)),
            (AGE, [], Rollback("s:2", discard_later=True), (1, *range(3, SIZE + 1))),
            (AGE, [], Pin("s:2"), (1, 3)),
            (AGE, [], Pin("s:200"), (1, 2, 3)),
            (AGE, [2], Unpin("s:2"), (1, 2, 3)),
            (AGE, [200], Unpin("s:200"), (1, 2, 3)),
            # An import is recorded now, counts for the cap, and compresses nothing.
            (AGE, [], imported("s:401"), (1, 2, 3)),
            (AGE, [], imported("s:2"), (1, 3)),
            (CAP, [], imported("s:403", "other:1", "s:401"), (2, 3, 4)),
            (CAP, [], imported("s:401", "s:200"), (2,)),
            (NAMES, [], imported("s:401"), ()),
        ],
    )
    def test_is_the_same_both_ways(
        self, policy: RetentionPolicy, pinned: list[int], action: Action, expected: tuple[int, ...]
    ) -> None:
        life = large(policy, *pinned)
        assert removed(life, action, looking=False) == expected
        assert removed(life, action, looking=True) == expected


class TestTheIndexFollows:
    """Each change reaches an index that was there before it, and what is removed next is right both ways."""

    @pytest.mark.parametrize(
        ("changes", "probe", "expected"),
        [
            ([create("twice"), create()], configure(compress_after=100, keep_recent=0), (10, 20)),
            ([Delete("s:20")], configure(compress_after=100), ()),
            ([Delete("s:2")], configure(max_age=100 * SECOND), (1, 3)),
            ([Pin("s:2")], configure(max_checkpoints=398), (3, 5)),
            ([Unpin("s:4")], configure(max_checkpoints=396), (2, 3, 4, 5)),
            ([imported("s:20")], configure(compress_after=100), ()),
            ([imported("s:2")], configure(max_age=100 * SECOND), (1, 3)),
            # So many that the index is made again.
            ([imported(*[f"s:{n}" for n in range(401, 471)])], configure(max_checkpoints=468), (2, 3)),
            ([Rollback("s:320", discard_later=True)], configure(max_checkpoints=318), (2, 3)),
        ],
    )
    def test_what_happened(self, changes: list[Action], probe: Action, expected: tuple[int, ...]) -> None:
        life = large(UNLIMITED, 4)
        assert life.session.retention_index() is not None
        for action in changes:
            assert isinstance(life.does(action, at=NOW), Accepted)
        assert removed(life, probe, looking=False) == expected
        assert removed(life, probe, looking=True) == expected

    def test_the_examples_cross_the_limits_that_they_are_about(self) -> None:
        assert LARGE < 320
        assert MANY < 70


def test_the_index_counts_as_much_as_the_checkpoints_in_the_weight() -> None:
    life = large(UNLIMITED)
    assert life.session.weight() == SIZE
    life.session.retention_index()
    assert life.session.weight() == 2 * SIZE
    life.pins(4)
    assert life.session.weight() == 2 * SIZE + 1
