"""What a retention policy would remove from a session now, by the rules that the worker follows. Pure.

Nothing here changes a session. The command line and the console show it before a policy is set.
"""

from collections.abc import Iterable
from typing import NamedTuple

from waypost.errors import InvalidCommandError
from waypost.model.commands import Command, Configure
from waypost.model.decisions import Configured, Rejected
from waypost.model.index import Session
from waypost.model.retention import Removals, RetentionPolicy, removals
from waypost.model.session import decide


class RetentionPreview(NamedTuple):
    """What a policy would do to a session that has so many ``checkpoints``: which of them would leave, by reason."""

    policy: RetentionPolicy
    checkpoints: int
    removals: Removals

    @property
    def removed(self) -> list[int]:
        """The numbers that would leave, rising."""
        return self.removals.numbers()


def preview_configure(
    session: Session, changes: Iterable[tuple[str, int | None]], default: RetentionPolicy, now: int
) -> RetentionPreview:
    """Return what a ``configure`` of the session would remove if it were recorded at ``now``, in microseconds.

    Args:
        session: The session's index.
        changes: The fields to change, as :func:`waypost.wire.encode.policy_changes` returns them.
        default: The partition's default policy.
        now: The broker's clock, in microseconds.

    Raises:
        InvalidCommandError: The worker would reject the command; with its code and message.
    """
    decision = decide(session, Command(None, 0, now, now, Configure(tuple(changes))), default)
    if isinstance(decision, Rejected):
        raise InvalidCommandError(decision.code, decision.message)
    if not isinstance(decision, Configured):
        raise AssertionError(f"a configure was answered by {decision!r}")
    return preview_default(session, decision.policy, now)


def preview_default(session: Session, default: RetentionPolicy, now: int) -> RetentionPreview:
    """Return what a default policy would remove from a session that follows it.

    That happens with the session's next command, not when the default is set. ``now`` is in microseconds.
    """
    return RetentionPreview(default, len(session), removals(session.live(), default, now, compress=True))
