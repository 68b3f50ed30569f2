"""Random sessions' lives: commands with clocks, ids and repetitions, for hypothesis."""

import random
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from tests.properties.naive import looks_encrypted
from tests.support.encrypted_data import ENCRYPTED, NEARLY_ENCRYPTED

from waypost.model.commands import (
    Action,
    Clear,
    Command,
    Configure,
    ConfigureDefaults,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Unpin,
)

SESSION = "run:7"  # a colon inside, for ids are split at their last one

_names = st.sampled_from(["started", "tool_called", "done"])
_own_ids = st.integers(1, 14).map(lambda number: f"{SESSION}:{number}")
_foreign_ids = st.sampled_from(["other:1", "other:2", "plain", "run:7", "run:3", "x:run:7:1"])
_odd_ids = st.sampled_from(
    [f"{SESSION}:{tail}" for tail in ("0", "01", "+1", "-1", "", " 1", "1 ", "²", "٣", "1_0", "1.0", "x")]
)
_huge_ids = st.sampled_from([f"{SESSION}:{10**15 + more}" for more in (0, 1, 2)] + [f"{SESSION}:{10**18}"])


def weighted(*options: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of the options, each as often as its weight says (``one_of`` takes equal ones as one)."""
    drawn = [index for index, (weight, _) in enumerate(options) for _ in range(weight)]
    return st.sampled_from(drawn).flatmap(lambda index: options[index][1])


def long_lists(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """About 30 elements, and still shrinking to few: hypothesis alone would draw about five."""
    parts = st.tuples(*[st.lists(elements, max_size=10) for _ in range(6)])
    return parts.map(lambda lists: [element for part in lists for element in part])


# Most commands should hit something: `~3` becomes the id of the third last create (see log).
_recent = st.integers(0, 7).map(lambda back: f"~{back}")
identifiers = weighted((9, _recent), (3, _own_ids), (3, _foreign_ids), (1, _odd_ids))
_imported_ids = weighted((30, _own_ids), (12, _foreign_ids), (3, _odd_ids), (1, _huge_ids))

_ages = st.one_of(st.none(), st.integers(1, 60))
policies = st.fixed_dictionaries(
    {},
    optional={
        "max_checkpoints": st.integers(2, 8),
        "compress_after": st.integers(1, 6),
        "keep_recent": st.integers(0, 8),
        "max_age": _ages,
    },
)
# Seldom: once a session accepts only encrypted data, it stays so.
_marks = weighted((9, st.just({})), (1, st.builds(lambda marked: {"encrypted": marked}, st.booleans())))
policies = st.builds(lambda fields, mark: {**fields, **mark}, policies, _marks)
changes = policies.map(lambda fields: tuple(fields.items()))

_contents = weighted((3, st.just(b"{}")), (3, st.just(ENCRYPTED)), (1, st.sampled_from(NEARLY_ENCRYPTED)))


def _create(name: str, data: bytes, is_known: bool) -> Create:
    return Create(name, data, b"{}", is_known and looks_encrypted(data))


creates = st.builds(_create, _names, _contents, st.booleans())
_items = st.builds(ImportItem, _imported_ids, _names, st.integers(-50, 50), _contents, st.just(b"{}"))
imports = st.builds(
    Import, st.lists(_items, max_size=6).map(tuple), st.sampled_from(["skip", "replace", "reject"])
)
_usual_actions: st.SearchStrategy[Action] = weighted(
    (20, creates),
    (6, st.builds(Pin, identifiers)),
    (3, st.builds(Unpin, identifiers)),
    (4, st.builds(Delete, identifiers)),
    (3, st.builds(Rollback, identifiers, st.booleans())),
    (5, imports),
    (4, st.builds(Configure, changes)),
    (1, st.just(Clear())),
    (4, st.builds(Expire, st.integers(-1, 12), st.booleans())),
)
# Nothing comes after an erasure, so most lives must have none.
session_actions: st.SearchStrategy[Action] = weighted((99, _usual_actions), (1, st.just(Erase())))
any_actions: st.SearchStrategy[Action] = weighted(
    (12, session_actions), (1, st.builds(ConfigureDefaults, changes))
)


@dataclass(frozen=True)
class Step:
    """A command before it has a place in the log; ``passed`` moves the broker's clock, seldom backwards."""

    action: Action
    command_id: str | None
    taken_at: int
    passed: int


def steps(actions: st.SearchStrategy[Action]) -> st.SearchStrategy[Step]:
    repeated = st.sampled_from([f"again-{number}" for number in range(6)])
    ids = weighted((4, st.uuids().map(str)), (2, repeated), (1, st.none()))
    passed = weighted((3, st.integers(0, 9)), (1, st.integers(-20, 40)))
    return st.builds(Step, actions, ids, st.integers(-50, 50), passed)


def log(steps: list[Step]) -> list[Command]:
    """The steps as commands at rising positions. The time of an expiry is so long before it is recorded."""
    now = 1_000
    created = 0
    commands = []
    for index, step in enumerate(steps):
        now += step.passed
        action = step.action
        created += isinstance(action, Create)
        if isinstance(action, Pin | Unpin | Delete | Rollback) and action.checkpoint_id.startswith("~"):
            back = int(action.checkpoint_id[1:])
            action = replace(action, checkpoint_id=f"{SESSION}:{max(created - back, 1)}")
        if isinstance(action, Expire):
            action = replace(action, idle_since=now - action.idle_since)
        commands.append(Command(step.command_id, index * 3, step.taken_at, now, action))
    return commands


# A tight policy of its own from the start, more often than not: that is where rules meet.
_tight = st.builds(
    lambda cap, age: (("max_checkpoints", cap), ("max_age", age)), st.integers(3, 8), st.integers(5, 40)
)
_first = weighted(
    (2, st.builds(Configure, _tight).map(lambda action: [Step(action, None, 0, 0)])), (1, st.just([]))
)


def _lives(actions: st.SearchStrategy[Action]) -> st.SearchStrategy[list[Command]]:
    return st.builds(lambda first, rest: log(first + rest), _first, long_lists(steps(actions)))


lives = _lives(session_actions)
lives_with_defaults = _lives(any_actions)


def _repetitive(runs: list[tuple[str, int]], seed: int) -> list[Command]:
    chance = random.Random(seed)  # drawing thousands of choices from hypothesis would exhaust it
    create = Create("started", b"{}")
    kinds: dict[str, Action] = {"create": create, "pin": Pin("~0"), "rollback": Rollback("~0")}
    few: dict[str, list[Action]] = {
        "clear": [Clear()],
        "expire": [Expire(0), Expire(0)],
        "erase": [Erase(), Erase()],
    }
    planned: list[Step] = []
    for kind, times in runs:
        # There is always a newest checkpoint to pin or to roll back to.
        actions: list[Action] = [create] + [kinds[kind]] * times if kind in kinds else [*few[kind], create]
        for action in actions:
            back = chance.randrange(500) if chance.random() < 0.25 else 0
            planned.append(Step(action, f"id-{max(0, len(planned) - back)}", 0, 1))
    return log(planned)


# Runs of one kind that fill the memory of command ids several times; one command in four repeats an id.
long_lives = st.builds(
    _repetitive,
    st.lists(
        st.tuples(st.sampled_from(["create", "pin", "rollback", "clear", "expire"]), st.integers(50, 200)),
        min_size=5,
        max_size=8,
    ).flatmap(lambda runs: st.sampled_from([runs, [*runs, ("erase", 1)]])),
    st.integers(0, 999),
)
