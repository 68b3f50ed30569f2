"""A preview names exactly what the command would remove, and changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.generate import SESSION, changes, lives
from tests.properties.views import plain_state

from waypost.errors import InvalidCommandError
from waypost.model.commands import Command, Configure
from waypost.model.decisions import Configured, Rejected, Unchanged
from waypost.model.index import Session
from waypost.model.preview import preview_configure, preview_default
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve

DEFAULT = RetentionPolicy(max_checkpoints=12, compress_after=9, keep_recent=3)


def lived(commands: list[Command]) -> Session:
    session = Session(SESSION)
    for command in commands:
        decision = decide(session, command, DEFAULT)
        if not isinstance(decision, Unchanged):
            evolve(session, command, decision)
    return session


@settings(deadline=None, max_examples=80)
@given(lives, changes, st.integers(900, 1_400))
def test_a_preview_of_a_policy_is_what_the_command_would_do(
    commands: list[Command], changed: tuple[tuple[str, int | None], ...], now: int
) -> None:
    session = lived(commands)
    before = plain_state(session)
    decision = decide(session, Command(None, 10**6, now, now, Configure(changed)), DEFAULT)
    if isinstance(decision, Rejected):
        with pytest.raises(InvalidCommandError) as raised:
            preview_configure(session, changed, DEFAULT, now)
        assert (raised.value.code, raised.value.message) == (decision.code, decision.message)
    else:
        preview = preview_configure(session, changed, DEFAULT, now)
        assert isinstance(decision, Configured)
        assert (preview.policy, tuple(preview.removed)) == (decision.policy, decision.removed)
        assert preview.checkpoints == len(session)
        listed = [number for reason in preview.removals for number in reason]
        assert len(listed) == len(set(listed))
    assert plain_state(session) == before


@settings(deadline=None, max_examples=80)
@given(lives, changes, st.integers(900, 1_400))
def test_a_preview_of_a_default_is_what_a_session_follows_from_then_on(
    commands: list[Command], changed: tuple[tuple[str, int | None], ...], now: int
) -> None:
    session = lived(commands)
    default = RetentionPolicy().changed(changed)
    preview = preview_default(session, default, now)
    session.policy = None
    adopted = decide(session, Command(None, 10**6, now, now, Configure(())), default)
    if isinstance(adopted, Configured):  # rejected if more is pinned than the default has room for
        assert tuple(preview.removed) == adopted.removed
