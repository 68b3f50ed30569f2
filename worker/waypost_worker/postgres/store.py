"""The Store port on asyncpg: one partition's rows, and the statement that applies a batch."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import orjson
from typing_extensions import override

from waypost.model.index import Entry, SeenCommand, Session
from waypost.model.limits import canonical_metadata
from waypost.model.retention import RetentionPolicy
from waypost.shards import ONLY, ShardSlot
from waypost_worker.partition.ports import (
    AcquiredState,
    Commit,
    Fence,
    Store,
    TimedOutError,
)
from waypost_worker.postgres.errors import owner_connection
from waypost_worker.postgres.group_acquire import Acquisition, GroupAcquirer
from waypost_worker.postgres.group_commit import GroupCommitter, overtaken
from waypost_worker.postgres.pool import Pool
from waypost_worker.postgres.rows import (
    PartitionCommit,
    authority_of,
    foreign_of,
    owners_of,
    policy_of,
    window_of,
)
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, statement

# The arrays of sql/load.sql, in the order of the fields of Entry and of SeenCommand.
_ENTRY_COLUMNS: Final = (
    "numbers",
    "names",
    "taken_at",
    "recorded_at",
    "positions",
    "command_ids",
    "imported_ids",
    "pinned",
)
_RECENT_COLUMNS: Final = ("recent_positions", "recent_command_ids", "recent_numbers")


class PostgresStore(Store):
    """One partition in Postgres, for its owner.

    A call takes at most ``timeout`` seconds, including the wait for a free connection of ``pool``; for commits, see
    :class:`GroupCommitter`, and for what takes a partition over :class:`GroupAcquirer`. ``place`` is the database's
    place among several; a database with another record is refused. Stores that share a ``committer`` commit in groups,
    and those that share an ``acquirer`` are acquired in groups.
    """

    def __init__(
        self,
        pool: Pool,
        partition: int,
        schema: str = DEFAULT_SCHEMA,
        *,
        place: ShardSlot = ONLY,
        timeout: float = 30,
        committer: GroupCommitter | None = None,
        acquirer: GroupAcquirer | None = None,
    ) -> None:
        self._pool = pool
        self._partition = partition
        self._place_given = place
        self._schema = schema
        self._timeout = timeout
        self._committer = committer or GroupCommitter(pool, schema, timeout)
        self._acquirer = acquirer or GroupAcquirer(pool, schema, timeout)
        # The row's ctid, as the last statement left it. Found by key, the row costs more with every batch that
        # was committed while a backup or a long query holds old rows, 4 ms more after 100,000 of them: each
        # old version is looked at. A row that was moved (VACUUM FULL) is not found, which looks like a lost
        # partition: it is acquired again, and with it the place.
        self._place: tuple[int, int] | None = None
        # A connection keeps the time limits that it began with, so new ones are made once a limit was too short.
        self._limits_outdated = False
        # Epoch and next offset, as the owner's last acquisition or commit left them.
        self._held: tuple[int, int] | None = None
        # The results position that is stored, as this store found or left it; outbox entries up to there are gone.
        self._emitted = -1
        # The recorded producer id and epoch, as the owner found or recorded them. Part of every compare-and-set: after
        # a restore two owners may hold the same epoch, and then only one of them has recorded its producer.
        self._producer: tuple[int | None, int | None] = (None, None)

    @override
    async def acquire(self, partitions: int) -> AcquiredState:
        if self._limits_outdated:
            self._limits_outdated = False
            await self._pool.expire_connections()
        with self._noting_limits():
            row, outbox = await self._acquirer.acquire(
                Acquisition(self._partition, partitions, self._place_given)
            )
        self._place = row["place"]
        self._held = (row["epoch"], row["next_offset"])
        self._emitted = row["emitted"]
        self._producer = (row["producer_id"], row["producer_epoch"])
        return AcquiredState(
            epoch=row["epoch"],
            next_offset=row["next_offset"],
            anchor=row["anchor"],
            emitted=row["emitted"],
            results_offset=row["results_offset"],
            partitions=row["partitions"],
            producer_id=row["producer_id"],
            default_policy=policy_of(row["default_policy"]) or RetentionPolicy(),
            default_commands=orjson.loads(row["default_commands"]),
            outbox=outbox,
            authority=authority_of(row["authority"]),
            skip_offset=row["skip_offset"],
            rejected_window=window_of(row["rejected_window"]),
            foreign_results=foreign_of(row["foreign_results"]),
            owners=owners_of(row["producer_id"], row["former_producer_ids"]),
        )

    @override
    async def record_claim(self, epoch: int, fence: Fence) -> None:
        await self._as_owner(self._acquirer.record_claim, epoch, *fence, *self._producer)
        self._producer = (fence.producer_id, fence.producer_epoch)

    @override
    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        next_offset = self._held[1] if self._held is not None else None
        await self._as_owner(
            self._acquirer.save_position, epoch, emitted, results_offset, next_offset, *self._producer
        )
        self._emitted = emitted

    @override
    async def note_blocked(self, offset: int) -> None:
        self._place = None  # the row moves
        async with self._connection() as connection:
            await connection.execute(self._sql("note_blocked"), self._partition, offset)

    @override
    async def is_skip_requested(self) -> bool:
        async with self._connection() as connection:
            return bool(await connection.fetchval(self._sql("skip_requested"), self._partition))

    @override
    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        rows = await self._held_rows("sizes", session_ids)
        return {row["session_id"]: row["checkpoints"] for row in rows}

    @override
    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        rows = await self._held_rows("load", session_ids)
        return {row["session_id"]: _session(row) for row in rows}

    @override
    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        listed = list(keys)
        rows = await self._held_rows("contents", [key[0] for key in listed], [key[1] for key in listed])
        return {
            (session_id, number): (data, canonical_metadata(orjson.loads(metadata)))
            for session_id, number, data, metadata in rows
        }

    @override
    async def commit(self, commit: Commit) -> None:
        place, self._place = self._place, None  # unknown, should this fail
        part = PartitionCommit(self._partition, place, self._emitted, self._producer, commit)
        with self._noting_limits():
            self._place = await self._committer.commit(part)
        self._held = (commit.epoch, commit.next_offset)
        self._emitted = commit.emitted

    async def _held_rows(self, name: str, *parameters: Any) -> list[Any]:
        """Rows as they are where the owner left the partition. The guard is in the statement itself: looked at
        apart, the partition might move between the look and the reading.
        """
        async with self._connection() as connection:
            rows = await connection.fetch(
                self._sql(name), self._partition, self._place, *(self._held or (None, None)), *parameters
            )
        if not rows:
            raise overtaken(self._partition)
        return [row for row in rows if row["session_id"] is not None]

    async def _as_owner(self, update: Callable[..., Awaitable[tuple[int, int]]], *parameters: Any) -> None:
        """Run an update that does nothing unless the partition is still this owner's."""
        place, self._place = self._place, None  # unknown, should this fail
        with self._noting_limits():
            self._place = await update(self._partition, place, *parameters)

    def _sql(self, name: str) -> str:
        return statement(name, self._schema)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        with self._noting_limits():
            async with owner_connection(self._pool, self._timeout) as connection:
                yield connection

    @contextmanager
    def _noting_limits(self) -> Iterator[None]:
        try:
            yield
        except TimedOutError:
            self._limits_outdated = True
            raise


def _session(row: Any) -> Session:
    """A row of ``sql/load.sql``; its arrays are null where they would be empty."""
    entries: list[Entry] = []
    if row["numbers"] is not None:
        entries = list(map(Entry, *(row[column] for column in _ENTRY_COLUMNS)))
    recent: list[SeenCommand] = []
    if row["recent_positions"] is not None:
        recent = list(map(SeenCommand, *(row[column] for column in _RECENT_COLUMNS)))
    return Session.restore(
        row["session_id"],
        row["counter"],
        policy_of(row["policy"]),
        entries,
        recent,
        row["last_recorded_at"],
        row["erased_at"],
    )
