"""A PostgreSQL of the operating system, 15 or newer, in place of the embedded one: migrations, store and reads.

Which one is whatever ``pg_config`` belongs to. Without one the test is skipped.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.harness import deployment
from tests.integration.reading import varied

from waypost import Reader
from waypost_worker.devserver import Servers
from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.postgres_programs import unprivileged_user
from waypost_worker.postgres.migrate import migrate_dsn


async def programs() -> Path:
    """Where the system's server programs are; skips without them."""
    found = shutil.which("pg_config")
    if found is not None:
        asked = await asyncio.create_subprocess_exec(
            found, "--bindir", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        told, _ = await asked.communicate()
        directory = Path(told.decode().strip())
        if (directory / "initdb").exists():
            return directory
    pytest.skip("the system has no PostgreSQL server: none but the embedded one was tested")


@pytest.fixture
async def dsn() -> AsyncIterator[str]:
    """A database on a server of the system's programs."""
    binaries = await programs()
    user = unprivileged_user()
    options: dict[str, Any] = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.STDOUT}
    if user is not None:
        options |= {"user": user[0], "group": user[1], "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="waypost-postgres-") as name:
        if user is not None:
            os.chown(name, *user)
        made = await asyncio.create_subprocess_exec(
            str(binaries / "initdb"),
            *(
                f"--pgdata={name}/data",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--no-locale",
            ),
            "--no-sync",
            **options,
        )
        assert await made.wait() == 0
        port = Port(0)
        address = f"postgresql://postgres@127.0.0.1:{port.number}/postgres"
        port.release()
        server = await asyncio.create_subprocess_exec(
            str(binaries / "postgres"),
            *("-D", f"{name}/data", "-p", str(port.number), "-c", f"unix_socket_directories={name}"),
            *("-c", "fsync=off"),
            **options,
        )
        try:
            async with asyncio.timeout(60):
                while not await _answers(address):
                    assert server.returncode is None
            yield address
        finally:
            server.terminate()
            await server.wait()


async def _answers(address: str) -> bool:
    try:
        connection = await asyncpg.connect(address)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


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
