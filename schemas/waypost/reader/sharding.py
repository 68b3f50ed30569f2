"""Reading from one database or from several: which of them holds a session or a partition.

Owns a pool for each database and the check that each is in its place in the list; the number of partitions is read from
the databases. Knows nothing about what is read. The map itself is :mod:`waypost.shards`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol
from uuid import UUID

from waypost.errors import AccessDeniedError, InvalidArgumentError, ReaderError, ShardMapError
from waypost.model.tenants import TenantScope
from waypost.reader.failures import is_missing_or_denied
from waypost.reader.pool import ReadPool, ReadTransaction
from waypost.shards import ShardSlot, check_place, shard_of
from waypost.wire.topics import partition_of


class Source(Protocol):
    """Answers the statements of one session."""

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement."""
        ...


class ShardedPool:
    """One pool for each database of the list, each checked when it is first used."""

    def __init__(self, pools: Sequence[ReadPool], scope: TenantScope) -> None:
        if not pools:
            raise InvalidArgumentError("the list of DSNs is empty")
        self.pools = list(pools)
        self.scope = scope
        self._checked: set[int] = set()
        self._set_id: UUID | None = None
        self._partitions: int | None = None

    @property
    def described(self) -> str:
        """The databases, and whether they may be read; contains no secret."""
        first, *others = self.pools
        more = f" and {len(others)} more" if others else ""
        return f"{first.described}{more}{': closed' if first.closed else ''}"

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(pool.close() for pool in self.pools))

    async def all(self) -> list[ReadPool]:
        """Every pool; ShardMapError if one is out of its place."""
        await asyncio.gather(*(self._check(shard) for shard in range(len(self.pools))))
        return self.pools

    async def of_partition(self, partition: int) -> ReadPool:
        """The pool of the database that holds a partition."""
        shard = shard_of(partition, len(self.pools))
        await self._check(shard)
        return self.pools[shard]

    async def of_session(self, session_id: str) -> ReadPool:
        """The pool of the database that holds a session; any, while there are no sessions.

        AccessDeniedError if the session is another tenant's.
        """
        self.scope.require(session_id)
        if len(self.pools) == 1:
            return await self.of_partition(0)
        partitions = await self._partition_count()
        return await self.of_partition(0 if partitions is None else partition_of(session_id, partitions))

    async def fetch_all(self, statement: str, *arguments: Any) -> list[list[Any]]:
        """Rows of a named statement, from each database."""
        return await asyncio.gather(*(pool.fetch(statement, *arguments) for pool in await self.all()))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["SnapshotSet"]:
        """A snapshot of each database, begun in sequence: each sees its own moment."""
        async with AsyncExitStack() as stack:
            parts = [await stack.enter_async_context(pool.snapshot()) for pool in await self.all()]
            partitions = await self._partition_count() if len(parts) > 1 else None

            def part_of(session_id: str) -> ReadTransaction:
                self.scope.require(session_id)
                partition = 0 if partitions is None else partition_of(session_id, partitions)
                return parts[shard_of(partition, len(parts))]

            yield SnapshotSet(parts, part_of, self.scope)

    async def _partition_count(self) -> int | None:
        """Return how many partitions the deployment has; None before any was owned. One database that answers is
        enough.
        """
        failure: Exception | None = None
        for shard in range(len(self.pools)):
            if self._partitions is None:
                try:
                    await self._look(shard)
                except ShardMapError:
                    raise
                except Exception as error:
                    failure = failure or error
        if self._partitions is None and failure is not None:
            raise failure
        return self._partitions

    async def _check(self, shard: int) -> None:
        if shard not in self._checked:
            await self._look(shard)

    async def _look(self, shard: int) -> None:
        shards = len(self.pools)
        try:
            row = await self._row(shard)
        except Exception as error:
            if shards > 1:
                error.add_note(f"shard {shard} of {shards}")
            raise
        given = ShardSlot(shard, shards, self._set_id)
        noted = None if row is None or row["shard"] is None else ShardSlot(*row[:3])
        if noted is None and shards > 1 and (row is None or row["partitions"] is None):
            raise ShardMapError(
                f"shard {shard} of {shards} has no record of its place: start a worker, or run 'waypost migrate', with "
                "the same list first"
            )
        check_place(noted, row is not None and row["partitions"] is not None, given)
        self._checked.add(shard)
        if noted is not None:
            self._set_id = noted.set_id
        if row is not None:
            self._partitions = row["partitions"]

    async def _row(self, shard: int) -> Any | None:
        try:
            return (await self.pools[shard].fetch("shard"))[0]
        except (AccessDeniedError, ReaderError) as error:
            # A schema older than shards, or a role that may not see that table, is not part of several databases.
            if len(self.pools) > 1 or not is_missing_or_denied(error):
                raise
            return None


class SessionSource:
    """The statements of one session, wherever it is."""

    def __init__(self, shards: ShardedPool, session_id: str) -> None:
        self._shards = shards
        self._session_id = session_id

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement."""
        pool = await self._shards.of_session(self._session_id)
        return await pool.fetch(statement, *arguments)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ReadTransaction]:
        """Run statements that all see the same moment. Hold a connection and its transaction until the end."""
        async with (await self._shards.of_session(self._session_id)).snapshot() as snapshot:
            yield snapshot


class SnapshotSet:
    """A snapshot of each database. All reads of one session see one moment."""

    def __init__(
        self,
        parts: Sequence[ReadTransaction],
        part_of: Callable[[str], ReadTransaction],
        scope: TenantScope,
    ) -> None:
        self.parts = parts
        self.scope = scope
        self._part_of = part_of

    async def fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement about one session."""
        return await self._part_of(session_id).fetch(statement, session_id, *arguments)

    def rows(self, statement: str, session_id: str, *arguments: Any) -> AsyncGenerator[Any, None]:
        """Read the rows of a named statement about one session, a few at a time."""
        return self._part_of(session_id).rows(statement, session_id, *arguments)
