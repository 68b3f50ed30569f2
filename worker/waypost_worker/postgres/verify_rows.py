"""One partition's rows as of one moment, streamed to verify. Holds a transaction while it is open."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson
from typing_extensions import override

from waypost.model.limits import canonical_metadata
from waypost.model.retention import RetentionPolicy
from waypost.shards import shard_of
from waypost_worker.partition.ports import RejectedRow, StoredOutbox
from waypost_worker.postgres.pool import prepare
from waypost_worker.postgres.rows import authority_of, foreign_of, policy_of, window_of
from waypost_worker.postgres.statements import statement
from waypost_worker.recovery.shares import Share
from waypost_worker.recovery.verify.rows import (
    OpenRows,
    StoredCheckpoint,
    StoredCommand,
    StoredPartition,
    StoredSession,
    Stray,
    VerifiedRows,
)

_PREFETCH: Final = 500
_EMPTY: Final = b"{}"


class PostgresRows(VerifiedRows):
    """Rows of one partition as one transaction sees them."""

    def __init__(self, connection: Any, schema: str, partition: int, shards: int) -> None:
        self._connection = connection
        self._schema = schema
        self._partition = partition
        self._shards = shards

    @override
    async def partition(self) -> StoredPartition | None:
        row = await self._connection.fetchrow(self._sql("verify_partition"), self._partition)
        if row is None:
            return None
        fields = dict(row)
        fields["default_policy"] = policy_of(row["default_policy"]) or RetentionPolicy()
        fields["default_commands"] = orjson.loads(row["default_commands"])
        fields["authority"] = authority_of(row["authority"])
        fields["rejected_window"] = window_of(row["rejected_window"])
        fields["foreign_results"] = foreign_of(row["foreign_results"])
        return StoredPartition(**fields)

    @override
    async def sessions(self, share: Share) -> AsyncIterator[StoredSession]:
        async for row in self._rows("verify_sessions", share):
            session_id, counter, policy, *rest = row
            yield StoredSession(session_id, counter, policy_of(policy), *rest)

    @override
    async def checkpoints(self, share: Share) -> AsyncIterator[StoredCheckpoint]:
        async for row in self._rows("verify_checkpoints", share):
            stored = StoredCheckpoint(*row)
            if stored.metadata != _EMPTY:
                stored = stored._replace(metadata=canonical_metadata(orjson.loads(stored.metadata)))
            yield stored

    @override
    async def commands(self, share: Share) -> AsyncIterator[StoredCommand]:
        async for row in self._rows("verify_commands", share):
            yield StoredCommand(*row)

    @override
    async def rejected(self, share: Share) -> AsyncIterator[RejectedRow]:
        async for row in self._rows("verify_rejected", share):
            headers = [
                (name, None if text is None else text.encode("latin-1"))
                for name, text in orjson.loads(row["headers"])
            ]
            yield RejectedRow(**{**row, "headers": headers})

    @override
    async def outbox(self) -> Sequence[StoredOutbox]:
        rows = await self._connection.fetch(self._sql("read_outbox"), [self._partition])
        return [StoredOutbox(*entry) for _, *entry in rows]

    @override
    async def strays(self, partitions: int) -> Sequence[Stray]:
        shard = shard_of(self._partition, self._shards)
        if self._partition != shard:
            return []  # the first partition of the database reports them
        rows = await self._connection.fetch(self._sql("verify_strays"), partitions, shard, self._shards)
        return [Stray(*row) for row in rows]

    def _rows(self, name: str, share: Share) -> AsyncIterator[Any]:
        bounds = (None, None) if share.whole else share
        cursor: AsyncIterator[Any] = self._connection.cursor(
            self._sql(name), self._partition, *bounds, prefetch=_PREFETCH
        )
        return cursor

    def _sql(self, name: str) -> str:
        return statement(name, self._schema)


class Snapshots(OpenRows):
    """Opens snapshots, each over its own connection, to the database of ``dsns`` that has the partition. The planner is
    the server's default, because tables are read whole here, which a worker's connection is set never to do.
    """

    def __init__(self, dsns: Sequence[str], schema: str, *, timeout: float, statement_seconds: float) -> None:
        self._dsns = dsns
        self._schema = schema
        self._timeout = timeout
        self._statement_seconds = statement_seconds

    @override
    @asynccontextmanager
    async def __call__(self, partition: int) -> AsyncIterator[PostgresRows]:
        """A snapshot of this moment."""
        connection: Any = await asyncpg.connect(
            self._dsns[shard_of(partition, len(self._dsns))],
            timeout=self._timeout,
            command_timeout=self._statement_seconds,
            statement_cache_size=0,
        )
        try:
            await prepare(connection)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield PostgresRows(connection, self._schema, partition, len(self._dsns))
        finally:
            connection.terminate()
