"""Taking partitions of one database over, grouped: one transaction for all that are acquired at the same time.

An acquisition has fixed costs: eight round trips and three flushes of the write-ahead log. A worker that takes 96
partitions over would pay them 96 times. Owners are independent here; each gets its own outcome.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias

from waypost.errors import ShardMapError
from waypost.shards import ShardSlot, check_place
from waypost_worker.partition.grouping import Grouper, UndoneError
from waypost_worker.partition.ports import RefusedError, StoredOutbox, UnavailableError
from waypost_worker.postgres.errors import owner_connection, owner_errors
from waypost_worker.postgres.group_commit import in_group, overtaken, run_together
from waypost_worker.postgres.pool import Pool, parsed
from waypost_worker.postgres.rows import places_literal
from waypost_worker.postgres.statements import DEFAULT_SCHEMA, statement

_Place: TypeAlias = tuple[int, int]
#: A partition, where its row is if that is known, and the statement's other parameters.
Update: TypeAlias = tuple[Any, ...]

# Outbox entries of this many partitions are read together, up to 16 MiB each.
_MOST_PARTITIONS: Final = 32


class Acquisition(NamedTuple):
    """A partition that an owner acquires, the partition count that it sees, and its database's place among several.

    ``waits`` says that it waits for its row if another transaction holds that.
    """

    partition: int
    partitions: int
    place: ShardSlot
    waits: bool = False


class AcquiredRow(NamedTuple):
    """A partition's row under its new epoch, and its outbox in order of offsets."""

    row: Any
    outbox: Sequence[StoredOutbox]


class _HeldElsewhereError(Exception):
    """Another transaction holds the partition's row just now."""


class GroupAcquirer:
    """Runs what owners acquire partitions with, for the database behind ``pool``.

    A transaction takes at most ``timeout`` seconds, including the wait for a free connection. A call may also wait as
    long for its turn, and may be repeated alone. Errors are those of the Store port.
    """

    def __init__(self, pool: Pool, schema: str = DEFAULT_SCHEMA, timeout: float = 30) -> None:
        self._pool = pool
        self._timeout = timeout
        self._limit_idling = statement("limit_idling", schema)
        self._acquire_rows = statement("acquire", schema)
        self._read_outbox = statement("read_outbox", schema)
        self._acquiring: Grouper[Acquisition, AcquiredRow] = Grouper(self._acquire, **_LIMITS)
        self._recording = self._updating("record_claim", schema)
        self._saving = self._updating("save_position", schema)
        # Groups take turns, and so use one connection: opening another one takes longer than they do.
        self._turn = asyncio.Lock()

    async def acquire(self, wanted: Acquisition) -> AcquiredRow:
        """Raise a partition's epoch and return what is stored. Nothing changes if the partition is refused."""
        try:
            return await self._acquiring.submit(wanted)
        except _HeldElsewhereError:
            return await self._acquiring.run_alone(wanted._replace(waits=True))

    async def record_claim(self, *update: Any) -> _Place:
        """Run ``record_claim.sql`` for a partition, and return where its row is now."""
        return await self._recording.submit(update)

    async def save_position(self, *update: Any) -> _Place:
        """Run ``save_position.sql`` for a partition, and return where its row is now."""
        return await self._saving.submit(update)

    def _updating(self, name: str, schema: str) -> Grouper[Update, _Place]:
        return Grouper(partial(self._update, statement(name, schema)), **_LIMITS)

    async def _acquire(self, group: Sequence[Acquisition]) -> Sequence[AcquiredRow | Exception]:
        if group[0].waits:
            return await self._acquired(group)
        try:
            async with self._in_turn():
                return await self._acquired(group)
        except Exception as error:
            if len(group) == 1:
                raise
            # Whether it took effect or not, each may try again: the next epoch does as well as this one.
            raise UndoneError(error) from error

    async def _acquired(self, group: Sequence[Acquisition]) -> list[AcquiredRow | Exception]:
        """Acquire partitions in one transaction. Leave out rows that others hold, unless one waits for its own."""
        wanted = sorted(group, key=lambda one: one.partition)
        partitions, counts = [one.partition for one in wanted], [one.partitions for one in wanted]
        outbox: dict[int, list[StoredOutbox]] = {partition: [] for partition in partitions}
        async with owner_connection(self._pool, self._timeout) as connection, connection.transaction():
            await connection.execute(self._limit_idling)
            # Before rows are locked: see parsed().
            read_outbox = await parsed(connection, self._read_outbox)
            found = await connection.fetch(self._acquire_rows, partitions, counts, not wanted[0].waits)
            rows = {row["partition"]: row for row in found}
            for one in group:
                if one.partition in rows:
                    _check(rows[one.partition], one)
            # A separate statement, because it must see what older owners committed while the previous one waited.
            for partition, *entry in await read_outbox.fetch(list(rows)):
                outbox[partition].append(StoredOutbox(*entry))
        return [
            AcquiredRow(rows[one.partition], outbox[one.partition])
            if one.partition in rows
            else _HeldElsewhereError()
            for one in group
        ]

    async def _update(self, sql: str, group: Sequence[Update]) -> Sequence[_Place | Exception]:
        partitions, places, *rest = zip(*sorted(group, key=lambda update: update[0]), strict=True)
        if len(set(partitions)) < len(group):
            raise UndoneError(ValueError("two updates are of one partition"))
        columns = [partitions, places_literal(places), *rest]
        try:
            async with self._in_turn():
                rows = await self._run(sql, columns, len(group))
        except UnavailableError as error:
            if len(group) == 1:
                raise
            return [in_group(error) for _ in group]
        found = {row["partition"]: row["place"] for row in rows}
        return [found.get(update[0]) or overtaken(update[0]) for update in group]

    async def _run(self, sql: str, columns: Sequence[Any], count: int) -> list[Any]:
        if count > 1:
            return await run_together(self._pool, self._timeout, sql, columns)
        async with owner_connection(self._pool, self._timeout) as connection:
            rows: list[Any] = await connection.fetch(sql, *columns)
        return rows

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        async with owner_errors(self._pool), asyncio.timeout(self._timeout):
            await self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()


_LIMITS: Final = {
    "most_items": _MOST_PARTITIONS,
    "most_weight": _MOST_PARTITIONS,
    "heavy": _MOST_PARTITIONS + 1,
}


def _check(row: Any, wanted: Acquisition) -> None:
    """Raise RefusedError if the database is not that of this owner's topic and place."""
    place, partitions = wanted.place, wanted.partitions
    if place.shards > partitions:
        raise RefusedError(
            f"there are {place.shards} databases for {partitions} partitions: the last would have none. "
            "Nothing was changed: name fewer, or create the topics with more partitions before the "
            "first command"
        )
    if row["noted"] is None and place.shards > 1:
        raise RefusedError(
            f"the database has no record of being shard {place.shard} of {place.shards}: it was created "
            "again after this worker started. Nothing was changed: restart the worker to record it"
        )
    try:
        check_place(None if row["noted"] is None else ShardSlot(*row["noted"]), False, place)
    except ShardMapError as error:
        raise RefusedError(str(error)) from error
    counts = (row["least_count"], row["most_count"])
    others = [count for count in counts if count is not None and count != partitions]
    if others:
        raise RefusedError(
            f"the command topic has {partitions} partitions, but this database was created for "
            f"{others[0]}: with another count, sessions move to other partitions and lose "
            "their order. Nothing was changed. Create topics with the old count under another "
            "prefix and move the database to them ('waypost topics adopt'); for more partitions, "
            "see docs/partitions.md"
        )
