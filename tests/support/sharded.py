"""Two databases on two servers, for tests of sharding.

Fixtures: `second_postgres`, a server besides the shared one, for the whole run; `pair`, two fresh and migrated
databases, one on each, that know nothing of each other; `sharded`, the same as a recorded set.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support.database_state import all_rows
from tests.support.servers import POSTGRES_SETTINGS, TEMPLATE, ServerDirectory, migrate_template, unavailable

from waypost_worker.devserver import DevServerError, EmbeddedPostgres
from waypost_worker.postgres.shards import note_places

TABLES = ("shard", "partitions", "sessions", "checkpoints", "recent_commands", "outbox", "rejected_commands")


@pytest.fixture(scope="session")
def second_postgres(server_directory: ServerDirectory) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_directory("second"), settings=POSTGRES_SETTINGS)
    try:
        server.start()
    except DevServerError as error:
        unavailable(str(error))
    try:
        migrate_template(server.create_database(TEMPLATE))
        yield server
    finally:
        server.stop()


@pytest.fixture
def pair(database: str, second_postgres: EmbeddedPostgres) -> Iterator[list[str]]:
    name = database.rpartition("/")[2]
    yield [database, second_postgres.create_database(name, template=TEMPLATE)]
    second_postgres.drop_database(name)


@pytest.fixture
async def sharded(pair: list[str]) -> str:
    await noted(pair)
    return " ".join(pair)


def own_server(directory: Path) -> EmbeddedPostgres:
    """One that a test may kill, with an empty database; started."""
    server = EmbeddedPostgres(directory, settings=POSTGRES_SETTINGS)
    server.start()
    return server


async def noted(dsns: Sequence[str]) -> None:
    """Let migrated databases note their places."""
    async with AsyncExitStack() as stack:
        connections: list[Any] = []
        for dsn in dsns:
            connections.append(await asyncpg.connect(dsn))
            stack.push_async_callback(connections[-1].close)
        await note_places(connections, "waypost")


async def state(dsns: Sequence[str]) -> list[dict[str, list[str]]]:
    """All that databases hold, as text; nothing for one without a schema."""
    return await asyncio.gather(*(all_rows(dsn, TABLES) for dsn in dsns))


async def rows(dsn: str, query: str, *arguments: Any) -> list[Any]:
    """Rows of one database."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *arguments))
    finally:
        await connection.close()
