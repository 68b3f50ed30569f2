"""A bounded memory of sessions, least recently used ones dropped first. Indexes only, never data."""

from collections.abc import Callable, Iterable

from waypost.model.index import Session

_BASE_WEIGHT = 8  # what a session costs besides its entries, in entries


class SessionCache:
    """Sessions by id, together at most ``room()`` items (entries and remembered command ids).

    Dropping one is always safe: it is read again from the store. So is dropping all after a failure. The room
    may change: it is what an owner's share of its worker's memory is now.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self.sessions: dict[str, Session] = {}
        self._room = room
        self._weights: dict[str, int] = {}
        self._total = 0

    def touch(self, session_ids: Iterable[str]) -> None:
        """Mark as used just now, weigh anew, and drop the longest unused beyond the room."""
        for session_id in session_ids:
            session = self.sessions.pop(session_id, None)
            if session is None:
                continue
            self.sessions[session_id] = session
            weight = _BASE_WEIGHT + session.weight()
            self._total += weight - self._weights.get(session_id, 0)
            self._weights[session_id] = weight
        room = self._room()
        while self._total > room and len(self.sessions) > 1:
            oldest = next(iter(self.sessions))
            del self.sessions[oldest]
            self._total -= self._weights.pop(oldest, 0)

    def __len__(self) -> int:
        return len(self.sessions)
