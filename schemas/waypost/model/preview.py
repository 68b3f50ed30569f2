"""Preview what a command would do to a session, decided as the worker decides it. Pure.

Nothing here changes a session. The command line and the console show a preview before they publish a command.
"""

from typing import Final, NamedTuple

from waypost.model.commands import Action, Command
from waypost.model.decisions import Accepted, Configured, Created, Deleted, Imported, Rejected
from waypost.model.index import Session
from waypost.model.retention import Removals, RetentionPolicy, removals
from waypost.model.session import decide

_NO_REASONS: Final = Removals([], [], [])


class Preview(NamedTuple):
    """The effect on a session of this many ``checkpoints``.

    ``rejected`` says why nothing would. Otherwise ``removed`` are the numbers that would go, rising, and ``kept``
    is how many checkpoints there would be. A change of policy has its ``policy`` and the ``reasons`` of each removal.
    """

    checkpoints: int
    kept: int
    removed: tuple[int, ...] = ()
    policy: RetentionPolicy | None = None
    reasons: Removals = _NO_REASONS
    rejected: Rejected | None = None


def preview(session: Session, action: Action, default: RetentionPolicy, now: int) -> Preview:
    """Return what ``action`` would do to the session if Kafka recorded it at ``now``.

    Args:
        session: The session's index. It stays as it is.
        action: The command.
        default: The policy in effect if the session has none.
        now: The broker's clock, in microseconds.
    """
    before = len(session)
    decision = decide(session, Command(None, 0, now, now, action), default)
    if isinstance(decision, Rejected):
        return Preview(before, before, rejected=decision)
    if isinstance(decision, Configured):
        return preview_policy(session, decision.policy, now)
    if not isinstance(decision, Accepted):
        return Preview(before, before)
    gone = {*decision.removed, decision.number} if isinstance(decision, Deleted) else {*decision.removed}
    kept = (session.entries.keys() | _added(decision)) - gone
    return Preview(before, len(kept), tuple(sorted(gone & session.entries.keys())))


def preview_policy(session: Session, policy: RetentionPolicy, now: int) -> Preview:
    """Return what a policy would remove at ``now``, in microseconds, from a session that follows it.

    A new default policy does that with the session's next command, not when the default is set.
    """
    reasons = removals(session.live(), policy, now, compress=True)
    removed = tuple(reasons.numbers())
    return Preview(len(session), len(session) - len(removed), removed, policy, reasons)


def _added(decision: Accepted) -> set[int]:
    match decision:
        case Created():
            return {decision.entry.number}
        case Imported():
            return {placed.number for placed in decision.placed}
        case _:
            return set()
