"""What a command would do to a session, decided by the model that decides when it comes. Pure."""

from dataclasses import dataclass

from waypost.model.commands import Action, Command
from waypost.model.decisions import Configured, Duplicate, Rejected, SessionKept
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve
from waypost_worker.operations.stored_session import StoredSession


@dataclass(frozen=True, slots=True)
class Preview:
    """What would happen: ``rejected`` says why nothing would, else ``removed`` are the numbers that would go.

    ``position`` is that of the last command of the session by then: if it moved, this is no longer true.
    """

    session_id: str
    position: int
    kept: int
    removed: tuple[int, ...] = ()
    policy: RetentionPolicy | None = None
    rejected: Rejected | None = None


def preview(session: StoredSession, action: Action, now: int) -> Preview:
    """Return what ``action`` would do at ``now``, in microseconds by the broker's clock."""
    index = session.index()
    command = Command(None, session.next_offset, now, now, action)
    decision = decide(index, command, session.policy)
    if isinstance(decision, Rejected):
        return Preview(session.session_id, session.last_position, len(index), rejected=decision)
    if isinstance(decision, Duplicate | SessionKept):
        return Preview(session.session_id, session.last_position, len(index))
    before = index.live_in_order()
    evolve(index, command, decision)
    return Preview(
        session.session_id,
        session.last_position,
        len(index),
        tuple(number for number in before if number not in index.entries),
        decision.policy if isinstance(decision, Configured) else None,
    )
