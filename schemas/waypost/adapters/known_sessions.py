"""This process's knowledge of sessions: whether records surely fit, and its own last command to each.

Pure: it is given results, and answers from Postgres.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from waypost.adapters.records import FULL
from waypost.errors import WaypostError
from waypost.publisher.waiter import CommandResult
from waypost.wire.event_types import EventType
from waypost.wire.topics import CommandPosition

_REMEMBERED: Final = 10_000  # sessions
_LOOK_AGAIN_SECONDS: Final = 10.0


class SessionFullError(WaypostError):
    """A session that holds as many records as an adapter puts into one. Nothing was added or removed."""


@dataclass(slots=True)
class KnownSession:
    """The known state of a session: how many records it held when its counter was at ``counter``.

    ``last`` is where its counter may stand by now. ``proven`` is the highest number that a result gave.
    """

    counter: int
    live: int
    last: int
    proven: int = 0
    token: CommandPosition | None = None
    seen_at: float = 0.0
    blind: bool = False  # whether others may have added records since

    def at_most(self) -> int:
        """Return an upper bound of the records that can be there, including those of other writers."""
        return self.live + self.last - self.counter


class KnownSessions:
    """The sessions that were used last."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, KnownSession] = OrderedDict()

    def __getitem__(self, session_id: str) -> KnownSession:
        return self._known[session_id]

    def token(self, session_id: str) -> CommandPosition | None:
        """Return the position of the last own command to a session that was waited for."""
        known = self._known.get(session_id)
        return None if known is None else known.token

    def has_room(self, session_id: str, count: int, full: int, now: float) -> bool:
        """Tell whether records surely fit, by what is known of a session."""
        known = self._known.get(session_id)
        if known is None or known.at_most() + count > full:
            return False
        if known.blind and now - known.seen_at >= _LOOK_AGAIN_SECONDS:
            return False
        self._known.move_to_end(session_id)
        return True

    def seen(self, session_id: str, *, counter: int, live: int, unapplied: int, now: float) -> int:
        """Note what Postgres has of a session, and how many own records it may lack. Return how many that makes."""
        if (known := self._known.get(session_id)) is None:
            known = self._known[session_id] = KnownSession(counter, live, counter)
        known.counter, known.live, known.seen_at, known.blind = counter, live, now, False
        # Records of others show in the numbers of this process's own records, but only if it waits for these. The last
        # guess does not count, because it may count records twice, as applied and as unapplied ones.
        known.last = max(counter + unapplied, known.proven)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known.at_most()

    def note(self, session_id: str, result: CommandResult) -> None:
        """Note the result of an own command.

        Raises:
            SessionFullError: Retention removed records, which the policy of the adapters' sessions never does.
        """
        if (known := self._known.get(session_id)) is None:
            # Assume that it is almost full until it is checked.
            known = self._known[session_id] = KnownSession(0, FULL, 0)
        known.token = max(known.token or result.token, result.token)
        if result.type in (EventType.CREATED, EventType.IMPORTED) and result.body["removed"]:
            raise SessionFullError(
                f"the session {session_id!r} has lost {len(result.body['removed'])} records to its retention, "
                f"the first {result.body['removed'][0]}: its policy was changed, or far too many processes add "
                "to it in parallel"
            )

    def numbered(self, session_id: str, ids: Iterable[str]) -> list[int]:
        """Note the ids that own records got, and return their numbers."""
        numbers = [int(each.rpartition(":")[2]) for each in ids]
        known = self._known[session_id]
        known.proven = max(known.proven, *numbers)
        known.last = max(known.last, known.proven)
        return numbers
