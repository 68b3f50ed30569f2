"""A bounded memory of sessions, least recently used ones dropped first. Indexes only, never data."""

from collections.abc import Iterable

from waypost.session import Session

_BASE_WEIGHT = 8  # what a session costs besides its entries, in entries


class SessionCache:
    """Sessions by id, together at most ``capacity`` items (entries and remembered command ids).

    Dropping one is always safe: it is read again from the store. So is dropping all after a failure.
    """

    def __init__(self, capacity: int) -> None:
        self.sessions: dict[str, Session] = {}
        self._capacity = capacity
        self._weights: dict[str, int] = {}
        self._total = 0

    def touch(self, session_ids: Iterable[str]) -> None:
        """Mark as used just now, weigh anew, and drop the longest unused beyond the capacity."""
        for session_id in session_ids:
            session = self.sessions.pop(session_id, None)
            if session is None:
                continue
            self.sessions[session_id] = session
            weight = _BASE_WEIGHT + session.weight()
            self._total += weight - self._weights.get(session_id, 0)
            self._weights[session_id] = weight
        while self._total > self._capacity and len(self.sessions) > 1:
            oldest = next(iter(self.sessions))
            del self.sessions[oldest]
            self._total -= self._weights.pop(oldest, 0)

    def __len__(self) -> int:
        return len(self.sessions)
