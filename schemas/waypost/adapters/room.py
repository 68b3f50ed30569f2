"""Room for records: a session is never filled so far that its retention would drop any."""

import asyncio

from waypost.adapters.commands import POLICY_COMMAND
from waypost.adapters.connection import Connection
from waypost.adapters.freshness import Freshness
from waypost.adapters.known_sessions import KnownSessions, SessionFullError
from waypost.adapters.records import POLICY
from waypost.adapters.turns import Turns
from waypost.adapters.unconfirmed import UnconfirmedWrites


class Room:
    """Checks whether records fit into a session, if this process does not already know."""

    def __init__(
        self,
        connection: Connection,
        unconfirmed: UnconfirmedWrites,
        known: KnownSessions,
        freshness: Freshness,
    ) -> None:
        self._connection = connection
        self._unconfirmed = unconfirmed
        self._known = known
        self._freshness = freshness
        self._looks = Turns()

    async def make(self, session_id: str, count: int, full: int, advice: str) -> None:
        """Make sure that a session takes ``count`` more records, and that its retention policy drops none.

        Raises:
            SessionFullError: It may hold more than ``full`` then.
        """
        if self._has_room(session_id, count, full):
            return
        # Calls at the same time need one look, and one policy.
        async with self._looks.of(session_id):
            if not self._has_room(session_id, count, full):
                live = await self._look(session_id)
                if live + count > full and self._unconfirmed.own.of_session(session_id):
                    # Records that are both applied and not settled were counted twice.
                    await self._freshness.settled(session_id)
                    live = await self._look(session_id)
        if not self._has_room(session_id, count, full):
            raise SessionFullError(
                f"the session {session_id!r} holds {self._known[session_id].at_most()} records, and {count} more would "
                f"exceed {full}. Nothing was added or removed. {advice}"
            )

    def _has_room(self, session_id: str, count: int, full: int) -> bool:
        return self._known.has_room(session_id, count, full, asyncio.get_running_loop().time())

    async def _look(self, session_id: str) -> int:
        """Check how many records a session holds, including its own unapplied ones, and that nothing is removed from
        it.
        """
        await self._freshness.caught_up(session_id)
        now = asyncio.get_running_loop().time()
        before = self._unconfirmed.own.of_session(session_id)
        info = await self._connection.reader.session_info(session_id)
        if info is None or info.policy is None or any(info.policy.get(k) != v for k, v in POLICY.items()):
            # Before the records, so that nothing is removed in the meantime.
            self._unconfirmed.publish_one(session_id, POLICY_COMMAND, [])
        counter, live = (0, 0) if info is None else (info.last_number, info.checkpoint_count)
        # Including those that are now known to be applied, because the answer may be older.
        own = {id(write): write for write in (*before, *self._unconfirmed.own.of_session(session_id))}
        unapplied = sum(write.records for write in own.values())
        return self._known.seen(session_id, counter=counter, live=live, unapplied=unapplied, now=now)
