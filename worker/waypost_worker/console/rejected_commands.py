"""Send rejected commands again, and forget them: the work behind the pages of rejected commands."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
from aiokafka import AIOKafkaProducer

from waypost.kafka.diagnosis import require_access
from waypost.shards import shard_of
from waypost.statements import load_statement
from waypost_worker.config.settings import Settings
from waypost_worker.console.reads import Reads
from waypost_worker.kafka.connection import Connection
from waypost_worker.operations.rejected import (
    LARGEST,
    RefusedCommand,
    RejectedFilters,
    count_rejected,
    purge_rejected,
)

_APPLIED_SECONDS: Final = 10.0
_PURGE_SECONDS: Final = 60.0


class RejectedCommands:
    """Sends rejected commands again, and forgets them."""

    def __init__(self, settings: Settings, connection: Connection, reads: Reads) -> None:
        self._settings = settings
        self._connection = connection
        self._reads = reads

    async def publish(self, refused: RefusedCommand, partitions: int) -> tuple[int, int]:
        """Send a command as received, and return its new place once it has a result there."""
        options = self._connection.options()
        await require_access(options)
        producer = AIOKafkaProducer(**options, enable_idempotence=True, max_request_size=LARGEST)
        await producer.start()
        try:
            record = await producer.send_and_wait(
                self._settings.topics.commands,
                refused.value,
                refused.key,
                partition=refused.target(partitions),
                headers=refused.headers,
            )
        finally:
            await producer.stop()
        place = (record.partition, record.offset)
        await self._reads.reader.wait_for(place, _APPLIED_SECONDS)
        return place

    async def forget(self, partition: int, offset: int) -> None:
        """Remove the copy of a rejected command that Postgres keeps. The errors are asyncpg's."""
        dsns = self._settings.dsns
        async with self._connected([dsns[shard_of(partition, len(dsns))]]) as (connection,):
            sql = load_statement("waypost_worker.operations", "rejected_drop", self._settings.postgres_schema)
            await connection.execute(sql, [partition], [offset])

    async def count(self, filters: RejectedFilters) -> list[dict[str, Any]]:
        """Return how many commands match, by code. The errors are asyncpg's."""
        async with self._connected(self._settings.dsns) as connections:
            return await count_rejected(connections, self._settings.postgres_schema, filters)

    async def purge(self, filters: RejectedFilters) -> tuple[int, bool]:
        """Remove what matches; return how many are gone, and whether that is all. The errors are asyncpg's."""
        dropped = 0
        until = time.monotonic() + _PURGE_SECONDS
        async with self._connected(self._settings.dsns) as connections:
            async for batch in purge_rejected(connections, self._settings.postgres_schema, filters):
                dropped += batch
                if time.monotonic() > until:
                    return dropped, False
        return dropped, True

    @asynccontextmanager
    async def _connected(self, dsns: Sequence[str]) -> AsyncIterator[list[Any]]:
        """Connect to databases with the right to write, which a reader's sessions do not have."""
        async with AsyncExitStack() as stack:
            connections: list[Any] = []
            for dsn in dsns:
                connection: Any = await asyncpg.connect(
                    dsn,
                    timeout=self._settings.request_timeout,
                    command_timeout=self._settings.request_timeout,
                    statement_cache_size=0,
                )
                stack.push_async_callback(connection.close, timeout=1)
                connections.append(connection)
            yield connections
