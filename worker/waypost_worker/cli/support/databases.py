"""The databases as commands see them: one connection to each, checked to be the ones that belong together."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from waypost.shards import ShardSlot, shard_of
from waypost_worker.cli.support.connections import postgres_errors
from waypost_worker.cli.support.output import CommandError
from waypost_worker.config.settings import Settings

if TYPE_CHECKING:
    from waypost_worker.postgres.store import PostgresStore

# One statement of a replay carries thousands of commands.
STATEMENT_SECONDS: Final = 120.0


class Databases:
    """A connection to each database, in the order of the list."""

    def __init__(self, connections: Sequence[Any]) -> None:
        self.connections = list(connections)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.connections)

    def __len__(self) -> int:
        return len(self.connections)

    def of(self, partition: int) -> Any:
        """The connection to the database that holds a partition."""
        return self.connections[shard_of(partition, len(self))]

    def grouped(self, places: Iterable[tuple[int, int]]) -> list[tuple[Any, list[tuple[int, int]]]]:
        """Places in the log by the connection to the database that holds them."""
        listed: dict[int, list[tuple[int, int]]] = {}
        for place in places:
            listed.setdefault(shard_of(place[0], len(self)), []).append(place)
        return [(self.connections[shard], found) for shard, found in listed.items()]


@asynccontextmanager
async def connected(settings: Settings, *, patiently: bool = False) -> AsyncIterator[Databases]:
    """Connections to all databases; ``patiently``, their statements may take as long as they need.

    CommandError if one can't be reached, or they are not the databases that belong together.
    """
    from waypost_worker.postgres.migrate import SchemaError
    from waypost_worker.postgres.shards import check_found, look

    async with postgres_errors(settings), AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(connection_to(settings, dsn, patiently=patiently))
            for dsn in settings.dsns
        ]
        try:
            check_found([await look(connection, settings.postgres_schema) for connection in connections])
        except SchemaError as error:
            raise CommandError(str(error)) from None
        yield Databases(connections)


@asynccontextmanager
async def connection_to(settings: Settings, dsn: str, *, patiently: bool = False) -> AsyncIterator[Any]:
    """A connection to one database; CommandError if it can't be reached."""
    import asyncpg

    async with postgres_errors(settings, dsn):
        connection: Any = await asyncpg.connect(
            dsn,
            timeout=settings.request_timeout,
            command_timeout=None if patiently else settings.request_timeout,
            statement_cache_size=settings.postgres_statement_cache,
        )
    try:
        yield connection
    finally:
        await connection.close(timeout=settings.request_timeout)


class Stores:
    """Opens stores of partitions, with a pool for each database that holds one of them."""

    def __init__(self, settings: Settings, pools: dict[int, Any]) -> None:
        self._settings = settings
        self._pools = pools

    def of(self, partition: int) -> "PostgresStore":
        """A partition's store, with time for large statements."""
        from waypost_worker.postgres.store import PostgresStore

        shards = len(self._settings.dsns)
        place = ShardSlot(shard_of(partition, shards), shards)
        return PostgresStore(
            self._pools[place.shard],
            partition,
            self._settings.postgres_schema,
            place=place,
            timeout=STATEMENT_SECONDS,
        )


@asynccontextmanager
async def stores(settings: Settings, partitions: Iterable[int]) -> AsyncIterator[Stores]:
    """Stores for these partitions; their pools are cut off at the end."""
    from waypost_worker.postgres.pool import open_pool

    dsns = settings.dsns
    counts: dict[int, int] = {}
    for partition in partitions:
        shard = shard_of(partition, len(dsns))
        counts[shard] = counts.get(shard, 0) + 1
    async with AsyncExitStack() as stack:
        pools: dict[int, Any] = {}
        for shard, count in counts.items():
            pools[shard] = await open_pool(
                dsns[shard],
                size=max(2, min(settings.postgres_pool_size, count)),
                timeout=STATEMENT_SECONDS,
                statement_cache_size=settings.postgres_statement_cache,
            )
            stack.callback(pools[shard].terminate)
        yield Stores(settings, pools)
