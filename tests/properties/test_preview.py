"""A preview says what the command does when it comes, and changes nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.generate import SESSION, Step, changes, lives, log, long_lists, session_actions, steps
from tests.properties.views import plain_state

from waypost.model.commands import Command, Configure
from waypost.model.decisions import Configured, Duplicate, Rejected, Unchanged
from waypost.model.index import Session
from waypost.model.preview import preview, preview_policy
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


@given(long_lists(steps(session_actions)), st.builds(RetentionPolicy, st.integers(2, 9)))
def test_a_preview_names_exactly_what_goes(life: list[Step], default: RetentionPolicy) -> None:
    session = Session(SESSION)
    for command in log(life):
        before, held = plain_state(session), set(session.entries)
        foreseen = preview(session, command.action, default, command.recorded_at)
        assert plain_state(session) == before
        decision = decide(session, command, default)
        if isinstance(decision, Duplicate):
            continue  # a preview is of a command that has no id yet
        if isinstance(decision, Unchanged):
            assert foreseen.rejected == (decision if isinstance(decision, Rejected) else None)
            assert (foreseen.kept, foreseen.removed) == (len(held), ())
            continue
        evolve(session, command, decision)
        assert foreseen.rejected is None
        assert foreseen.removed == tuple(sorted(held - set(session.entries)))
        assert (foreseen.checkpoints, foreseen.kept) == (len(held), len(session))
        if isinstance(decision, Configured):
            assert foreseen.policy == session.policy
            listed = [number for reason in foreseen.reasons for number in reason]
            assert len(listed) == len(set(listed))


@settings(deadline=None, max_examples=80)
@given(lives, changes, st.integers(900, 1_400))
def test_a_preview_of_a_default_is_what_a_session_follows_from_then_on(
    commands: list[Command], changed: tuple[tuple[str, int | None], ...], now: int
) -> None:
    session = lived(commands)
    default = RetentionPolicy().changed(changed)
    foreseen = preview_policy(session, default, now)
    session.policy = None
    adopted = decide(session, Command(None, 10**6, now, now, Configure(())), default)
    if isinstance(adopted, Configured):  # rejected if more is pinned than the default has room for
        assert foreseen.removed == adopted.removed
