"""A preview says what the command does when it comes: both are the model's decision."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from tests.properties.generate import SESSION, Step, log, long_lists, session_actions, steps

from waypost.model.decisions import Configured, Duplicate, Rejected, SessionKept
from waypost.model.index import Session
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve
from waypost_worker.operations.preview import preview
from waypost_worker.operations.stored_session import StoredSession

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def stored(session: Session, default: RetentionPolicy) -> StoredSession:
    return StoredSession(
        session_id=session.session_id,
        partition=0,
        counter=session.counter,
        policy=session.policy or default,
        own_policy=session.policy is not None,
        first_recorded_at=LONG_AGO,
        last_recorded_at=LONG_AGO,
        next_offset=0,
        last_position=0,
        entries=tuple(session.live()),
        sizes=(2,) * len(session),
    )


@given(long_lists(steps(session_actions)), st.builds(RetentionPolicy, st.integers(2, 9)))
def test_a_preview_names_exactly_what_goes(life: list[Step], default: RetentionPolicy) -> None:
    session = Session(SESSION)
    for command in log(life):
        foreseen = preview(stored(session, default), command.action, command.recorded_at)
        decision = decide(session, command, default)
        if isinstance(decision, Duplicate | SessionKept):
            continue
        if isinstance(decision, Rejected):
            assert foreseen.rejected == decision
            continue
        before = set(session.entries)
        evolve(session, command, decision)
        assert foreseen.rejected is None
        assert foreseen.removed == tuple(sorted(before - set(session.entries)))
        assert foreseen.kept == len(session)
        if isinstance(decision, Configured):
            assert foreseen.policy == session.policy
