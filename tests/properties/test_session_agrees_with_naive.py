"""The state machine and the naive model, command by command: same decisions, same session."""

from unittest.mock import patch

import pytest
from hypothesis import event, given, settings
from tests.properties.generate import SESSION, lives_with_defaults, long_lives
from tests.properties.naive import DEFAULT_POLICY, NaiveSession
from tests.properties.views import plain_decision, plain_entries, plain_policy

from waypost.model import index
from waypost.model import session as rules
from waypost.model.commands import Command, ConfigureDefaults
from waypost.model.decisions import Unchanged
from waypost.model.index import Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve


def run_both(commands: list[Command]) -> None:
    session, naive = Session(SESSION), NaiveSession(SESSION)
    default, naive_default = RetentionPolicy(), dict(DEFAULT_POLICY)
    for command in commands:
        if isinstance(command.action, ConfigureDefaults):
            default = default.changed(command.action.changes)
            naive_default |= dict(command.action.changes)
            continue
        decision = decide(session, command, default)
        if not isinstance(decision, Unchanged):
            evolve(session, command, decision)
        expected = naive.handle(command, naive_default)
        event(expected[0])
        assert plain_decision(decision) == expected, command
        assert plain_entries(session) == naive.checkpoints, command
        assert len(session) == len(naive.checkpoints)
        assert session.counter == naive.counter
        assert (session.policy and plain_policy(session.policy)) == naive.policy
        assert session.pins() == sum(checkpoint["pinned"] for checkpoint in naive.checkpoints)
        assert [list(remembered) for remembered in session.recent] == naive.others


# How many checkpoints make a session a large one, and how many that come or go at once make many.
sizes = pytest.mark.parametrize(("large", "many"), [(index.LARGE, index.MANY), (0, 1), (3, 0)])


@sizes
@settings(deadline=None, max_examples=150)
@given(commands=lives_with_defaults)
def test_random_lives(large: int, many: int, commands: list[Command]) -> None:
    with (
        patch.object(index, "LARGE", large),
        patch.object(index, "MANY", many),
        patch.object(rules, "MANY", many),
    ):
        run_both(commands)


@sizes
@settings(deadline=None, max_examples=15)
@given(commands=long_lives)
def test_lives_long_enough_to_forget(large: int, many: int, commands: list[Command]) -> None:
    with (
        patch.object(index, "LARGE", large),
        patch.object(index, "MANY", many),
        patch.object(rules, "MANY", many),
    ):
        run_both(commands)
