"""The databases of a deployment: one for all partitions, or several of which each holds its own.

Owns what a database notes of its place among several, and the pools of a worker. That the places are right is
checked before anything is written: at every start here, and by every owner that acquires a partition.
"""

import asyncio
import secrets
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

import asyncpg

from waypost.errors import ShardMapError
from waypost.shards import ShardSlot, check_place, shard_of
from waypost_worker.postgres.errors import explained, is_outdated
from waypost_worker.postgres.migrate import ReadOnlyDatabaseError, SchemaError, check_schema, migrate
from waypost_worker.postgres.pool import Pool, open_pool, parsed
from waypost_worker.postgres.statements import statement

Connection = Any  # an asyncpg connection, pooled or not
_WAITS: Final = "it answers, but is new: a new set is recorded once all its databases answer"


class Found(NamedTuple):
    """The state of a database: its own record of its place, and whether it has positions of partitions."""

    noted: ShardSlot | None
    used: bool


async def look(connection: Connection, schema: str) -> Found:
    """Return the state of a database; one without a schema is new."""
    tables = await connection.fetchrow(statement("shard_tables", schema))
    if not tables["has_partitions"]:
        return Found(None, False)
    row = await connection.fetchrow(statement("shard_noted", schema)) if tables["has_shard"] else None
    used = await connection.fetchval(statement("shard_used", schema))
    return Found(None if row is None else ShardSlot(*row), used)


def check_found(found: Sequence[Found | None], set_id: uuid.UUID | None = None) -> uuid.UUID | None:
    """Return the id of the set, None if it has none yet. Raise SchemaError unless each database is in its place.

    ``found`` is in the order of the list, None for what was not reached.
    """
    for shard, one in enumerate(found):
        if one is None:
            continue
        try:
            check_place(one.noted, one.used, ShardSlot(shard, len(found), set_id))
        except ShardMapError as error:
            raise SchemaError(str(error)) from error
        if one.noted is not None:
            set_id = one.noted.set_id
    return set_id


async def check_set(connections: Sequence[Connection], schema: str) -> list[Found]:
    """Return the states of the listed databases. Raise SchemaError unless they belong together and none is listed
    twice.
    """
    found = [await look(connection, schema) for connection in connections]
    check_found(found)
    if any(one.noted is None for one in found):
        await check_distinct(connections)
    return found


async def check_distinct(connections: Sequence[Connection]) -> None:
    """Raise SchemaError if two of them are connections to one database, under any names. Changes nothing."""
    for first, connection in enumerate(connections[:-1]):
        number = secrets.randbits(62)
        async with connection.transaction():
            await connection.execute(statement("shard_hold"), number)
            for second, other in enumerate(connections[first + 1 :], first + 1):
                async with other.transaction():
                    free = await other.fetchval(statement("shard_try"), number)
                if not free:
                    raise SchemaError(
                        f"shards {first} and {second} of {len(connections)} are the same database. Nothing was "
                        "changed: name each database once; see docs/sharding.md"
                    )


async def note_places(connections: Sequence[Connection], schema: str) -> uuid.UUID | None:
    """Let each of several databases note its place, unless it has; they are checked and migrated already. The set's id.

    The first database's set id becomes that of all. If two processes do this at the same time, one of them gets there
    first.
    """
    if len(connections) == 1:
        return None
    found = [await look(connection, schema) for connection in connections]
    set_id = check_found(found)
    if all(one.noted is not None for one in found):
        return set_id  # as at every start but the first: a lock would hold up every commit meanwhile
    for shard, connection in enumerate(connections):
        place = ShardSlot(shard, len(connections), set_id or uuid.uuid4())
        async with connection.transaction(isolation="read_committed"):
            await connection.execute(statement("limit_idling"))
            set_id = await note_place(connection, schema, place)
    return check_found([await look(connection, schema) for connection in connections])


async def note_place(connection: Connection, schema: str, place: ShardSlot) -> uuid.UUID | None:
    """Note the place of a migrated database, one of several, in the transaction at hand; the set's id as it stands.

    SchemaError if the database has another place.
    """
    noted, used, note = [
        await parsed(connection, statement(name, schema))
        for name in ("shard_noted", "shard_used", "shard_note")
    ]
    await connection.execute(statement("shard_lock", schema))
    row = await noted.fetchrow()
    found = Found(None if row is None else ShardSlot(*row), await used.fetchval())
    check_found([found if shard == place.shard else None for shard in range(place.shards)])
    if found.noted is not None:
        return found.noted.set_id
    await note.fetch(*place)
    return place.set_id


class Shards:
    """A worker's pools, one for each database of the list: opened once the database is reached and checked."""

    def __init__(
        self,
        dsns: Sequence[str],
        schema: str,
        *,
        size: int,
        timeout: float,
        statement_cache_size: int,
        migrate: bool = False,
    ) -> None:
        self._dsns = list(dsns)
        self._schema = schema
        self._size = size
        self._timeout = timeout
        self._cache_size = statement_cache_size
        self._migrate = migrate
        self._set_id: uuid.UUID | None = None
        #: Open ones, by shard.
        self.pools: dict[int, Pool] = {}
        #: Why the others are not open.
        self.problems: dict[int, Exception] = {}

    def __len__(self) -> int:
        return len(self._dsns)

    def place_of(self, partition: int) -> ShardSlot:
        """Return the database of a partition."""
        return ShardSlot(shard_of(partition, len(self)), len(self), self._set_id)

    async def open(self, *, strict: bool = True) -> None:
        """Try to open what is not; ``problems`` then says why the rest is not. Raises if no database can be used.

        Raise SchemaError, if ``strict``, if a database that answers is not one that this version, or this list, can
        use.
        """
        missing = [shard for shard in range(len(self)) if shard not in self.pools]
        tried = await asyncio.gather(*map(self._reach, missing), return_exceptions=True)
        reached: dict[int, tuple[Pool, Found]] = {}
        for shard, one in zip(missing, tried, strict=True):
            if isinstance(one, tuple):
                reached[shard] = one
            elif isinstance(one, Exception):
                self.problems[shard] = explained(one)
            else:
                raise one
        try:
            await self._take(reached)
        finally:
            for shard, (pool, _) in reached.items():
                if self.pools.get(shard) is not pool:
                    pool.terminate()
        wrong = [problem for problem in self.problems.values() if isinstance(problem, SchemaError)]
        if strict and wrong:
            raise wrong[0]
        if not self.pools:
            raise next(iter(self.problems.values()))

    async def check(self, shard: int) -> None:
        """Raise unless a database answers, can be written, and has a schema that this version can work with.

        A server with another answer may be one to which the address no longer leads, so its connections are replaced.
        """
        if (pool := self.pools.get(shard)) is None:
            raise self.problems.get(shard) or ConnectionError("not connected yet")
        async with pool.acquire() as connection:
            try:
                await check_schema(connection, self._schema, newer=True, writable=True)
            except Exception as error:
                # A server that is only slow keeps its connections: new ones would cost it more.
                if isinstance(error, ReadOnlyDatabaseError | SchemaError) or is_outdated(error):
                    await pool.expire_connections()
                raise explained(error) from error

    def unknown(self, shard: int) -> bool:
        """Return whether a failed check says nothing about the database: it was never tried, or others use all
        connections.
        """
        if (pool := self.pools.get(shard)) is None:
            return shard not in self.problems
        return bool(pool.get_idle_size() == 0 and pool.get_size() == pool.get_max_size())

    async def close(self, seconds: float) -> None:
        """Close the pools; connections that take longer are cut off."""
        await asyncio.gather(*(_close(pool, seconds) for pool in self.pools.values()))

    async def _reach(self, shard: int) -> tuple[Pool, Found]:
        pool = await open_pool(
            self._dsns[shard],
            size=self._size,
            timeout=self._timeout,
            statement_cache_size=self._cache_size,
        )
        try:
            async with pool.acquire() as connection:
                return pool, await look(connection, self._schema)
        except BaseException:
            pool.terminate()
            raise

    async def _take(self, reached: dict[int, tuple[Pool, Found]]) -> None:
        """Take in those that may be used."""
        fit: dict[int, Found] = {}
        for shard, (_, found) in reached.items():
            try:
                in_place = [found if at == shard else None for at in range(len(self))]
                self._set_id = check_found(in_place, self._set_id)
            except SchemaError as error:
                self.problems[shard] = error
            else:
                fit[shard] = found
        new = [shard for shard, found in fit.items() if found.noted is None] if len(self) > 1 else []
        if new:
            pools = self.pools | {shard: reached[shard][0] for shard in fit}
            try:
                await self._begin(pools)
            except Exception as error:
                self.problems |= dict.fromkeys(new, error)
                fit = {shard: found for shard, found in fit.items() if shard not in new}
        for shard in fit:
            await self._admit(shard, reached[shard][0])

    async def _begin(self, pools: dict[int, Pool]) -> None:
        """Let new databases of a set note their places."""
        if len(pools) < len(self):
            raise ConnectionError(_WAITS)
        async with AsyncExitStack() as stack:
            everyone = [await stack.enter_async_context(pools[shard].acquire()) for shard in range(len(self))]
            await check_distinct(everyone)
            for connection in everyone:
                await self._prepare(connection)
            self._set_id = await note_places(everyone, self._schema)

    async def _admit(self, shard: int, pool: Pool) -> None:
        try:
            async with pool.acquire() as connection:
                await self._prepare(connection)
        except Exception as error:
            self.problems[shard] = explained(error)
        else:
            self.pools[shard] = pool
            self.problems.pop(shard, None)

    async def _prepare(self, connection: Connection) -> None:
        if self._migrate:
            await migrate(connection, self._schema)
        await check_schema(connection, self._schema, writable=True)


async def _close(pool: Pool, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await pool.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        pool.terminate()
