"""One call at a time for each session, in the order in which they came."""

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """Locks by session. One exists as long as a call holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, session_id: str) -> asyncio.Lock:
        """Return the lock of a session, to be used with ``async with`` immediately."""
        lock = self._locks.get(session_id)
        if lock is None:
            lock = self._locks[session_id] = asyncio.Lock()
        return lock
