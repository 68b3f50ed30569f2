"""A PostgreSQL of the operating system, 15 or newer, in place of the embedded one: migrations, store and reads.

Without one the test is skipped.
"""

from collections.abc import AsyncIterator

import pytest
from tests.integration.reading import varied
from tests.support.deployment import deployment
from tests.support.system_postgres import system_postgres

from waypost import Reader
from waypost_worker.devserver import Servers
from waypost_worker.postgres.migrate import migrate_dsn


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """A database on a server of the system's programs."""
    async with system_postgres() as server:
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres"


async def test_migrations_store_and_reads_on_the_systems_own_postgres(
    dsn: str, servers: Servers, topic_prefix: str
) -> None:
    await migrate_dsn(dsn)
    async with deployment(servers.endpoints, dsn, topic_prefix) as world:
        print(await world.pool.fetchval("select version()"))
        world.own()
        twin = await varied(world)
        async with Reader(dsn) as reader:
            session = await twin.applied(reader)
            assert await session.export() == twin.manager.export()
            assert await session.get_summary() == twin.manager.get_summary()
            assert (await reader.recent_sessions()).sessions == await reader.sessions()
        await world.balanced()
