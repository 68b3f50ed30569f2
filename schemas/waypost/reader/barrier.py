"""Reading what others wrote: how far Kafka's log goes, and how far Postgres has applied it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from waypost.backoff import Backoff
from waypost.errors import ReaderTimeoutError
from waypost.kafka.log_ends import LogEnds
from waypost.reader.sharding import ShardedPool
from waypost.sharing import SharedRequests
from waypost.wire.topics import partition_of

_FIRST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.02
_LOOK_SECONDS: Final = 0.5


class Barrier:
    """Asks Kafka and Postgres for positions of the command log. Calls at the same time share a request."""

    def __init__(self, shards: ShardedPool, topic: str, options: Mapping[str, Any], timeout: float) -> None:
        self._shards = shards
        self._ends = LogEnds(topic, options, timeout)
        self._positions: SharedRequests[int, int] = SharedRequests(self._ask)

    async def partition_of(self, session_id: str) -> int:
        """Return the partition of a session's commands."""
        return partition_of(session_id, await self.partition_count())

    async def partition_count(self) -> int:
        """Return how many partitions the command topic has."""
        return await self._ends.partition_count()

    async def end_of(self, partition: int) -> int:
        """Return the offset after the last command that Kafka had acknowledged when this call began, or a later one."""
        return await self._ends.end_of(partition)

    async def position_of(self, partition: int) -> int:
        """Return the offset of the first command that Postgres may lack."""
        return await self._positions.get(partition)

    async def applied(self, partition: int, end: int, timeout: float) -> int:
        """Wait until Postgres has all commands below ``end``, and return its position.

        That may be below ``end`` if no command lies between.

        Raises:
            ReaderTimeoutError: That took longer than ``timeout`` seconds.
        """
        position: int | None = None
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        limit = asyncio.timeout(timeout)
        clock = asyncio.get_running_loop().time
        look_at = clock() + _LOOK_SECONDS
        try:
            async with limit:
                while True:
                    before, position = position, await self.position_of(partition)
                    if position >= end:
                        return position
                    if clock() >= look_at:
                        # No command moves a worker's position past markers of transactions and aborted records.
                        if position == before and await self._ends.is_empty(partition, position, end):
                            return position
                        look_at = clock() + _LOOK_SECONDS
                    await asyncio.sleep(backoff.next_wait())
        except TimeoutError:
            if not limit.expired():
                raise
            known = (
                "has an unknown position"
                if position is None
                else f"has applied the commands below {position}"
            )
            raise ReaderTimeoutError(
                f"Postgres {known} of partition {partition}, and Kafka has some up to {end}, after {timeout:g} s. "
                "Is a worker running?"
            ) from None

    async def close(self) -> None:
        """Close the connection to Kafka."""
        await self._positions.stop()
        await self._ends.close()

    async def _ask(self, partitions: list[int]) -> dict[int, int]:
        async def position(partition: int) -> int:
            pool = await self._shards.of_partition(partition)
            rows = await pool.fetch("position", partition)
            return int(rows[0]["next_offset"]) if rows else 0

        found = await asyncio.gather(*(position(each) for each in partitions))
        return dict(zip(partitions, found, strict=True))
