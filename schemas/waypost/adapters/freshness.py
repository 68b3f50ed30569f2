"""The wait of a read, after which it sees everything that was acknowledged before it.

Kafka says how far its log goes, and Postgres how much of it is applied. If only this process's own writes are missing,
they are taken from memory.
"""

import asyncio

from waypost.adapters.connection import Connection
from waypost.adapters.known_sessions import KnownSessions
from waypost.adapters.records import Row
from waypost.adapters.unconfirmed import UnconfirmedWrites


class Freshness:
    """Waits until reads of Postgres see enough."""

    def __init__(self, connection: Connection, unconfirmed: UnconfirmedWrites, known: KnownSessions) -> None:
        self._connection = connection
        self._unconfirmed = unconfirmed
        self._known = known

    async def own_rows(self, session_id: str, *, stale_ok: bool = False) -> list[Row]:
        """Wait until a read of Postgres, with the rows returned here, sees all that was acknowledged before this call.

        These rows are records that this process added and Postgres may lack, oldest first. They are the newest of the
        session. With ``stale_ok``, only this process's own writes are sure to be seen.

        Raises:
            KafkaUnavailableError: Kafka did not say how far its log goes.
            ReaderTimeoutError: Postgres did not come that far in time.
            RejectedWriteError: The worker rejected an earlier write to the session.
        """
        self._unconfirmed.raise_rejected(session_id)
        await self.caught_up(session_id)
        if self._unconfirmed.own.has_unkept_outside_kafka(session_id):
            await self._unconfirmed.until_in_kafka(session_id)
        if stale_ok:
            if not self._unconfirmed.own.of_session(session_id):
                return []
            partition = await self._connection.barrier.partition_of(session_id)
            end = self._unconfirmed.own.end_of_unkept(session_id)
            position = await self._connection.barrier.applied(partition, end, self._connection.timeout)
        else:
            partition = await self._connection.barrier.partition_of(session_id)
            # At a position that was read earlier, a read later finds that much or more.
            end, position = await asyncio.gather(
                self._connection.barrier.end_of(partition), self._connection.barrier.position_of(partition)
            )
            if position < end and not self._unconfirmed.own.cover(partition, position, end):
                position = await self._connection.barrier.applied(partition, end, self._connection.timeout)
        await self._unconfirmed.settle_session(session_id, partition, position)
        return [
            row for write in self._unconfirmed.own.unapplied(session_id, position) for row in write.rows or ()
        ]

    async def settled(self, session_id: str, *, stale_ok: bool = False) -> None:
        """Wait until a read of Postgres alone sees all that was acknowledged before this call."""
        self._unconfirmed.raise_rejected(session_id)
        await self.caught_up(session_id)
        own = self._unconfirmed.own.of_session(session_id)
        if stale_ok and not own:
            return
        await self._unconfirmed.until_in_kafka(session_id)
        partition = await self._connection.barrier.partition_of(session_id)
        if stale_ok:
            end = max((write.offset for write in own if write.offset is not None), default=-1) + 1
        else:
            end = await self._connection.barrier.end_of(partition)
        position = await self._connection.barrier.applied(partition, end, self._connection.timeout)
        await self._unconfirmed.settle_session(session_id, partition, position)

    async def all_settled(self) -> None:
        """Wait until a read of any session sees all that was acknowledged before this call."""
        await self._connection.publisher.flush(self._connection.timeout)
        for partition in range(await self._connection.barrier.partition_count()):
            end = await self._connection.barrier.end_of(partition)
            await self._connection.barrier.applied(partition, end, self._connection.timeout)

    async def caught_up(self, session_id: str) -> None:
        """Wait until this process's own last write to the session can be read."""
        if (token := self._known.token(session_id)) is not None:
            await self._connection.reader.wait_for(token, self._connection.timeout)
