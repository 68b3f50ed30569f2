"""A pgbouncer in transaction mode between tests and a database."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.postgres_programs import unprivileged_user


@asynccontextmanager
async def pgbouncer(dsn: str, *, server_connections: int = 2) -> AsyncIterator[str]:
    """A pooler before this database, with so many connections to the server; its DSN. Skips without the program."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer on PATH: what holds behind a pooler was not tested")
    address = urlsplit(dsn)
    user = unprivileged_user()
    directory = Path(tempfile.mkdtemp(prefix="waypost-pgbouncer-"))
    port = Port(0)
    (directory / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={address.hostname} port={address.port} user={address.username} password={address.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port.number}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {server_connections}
logfile = {directory}/pgbouncer.log
"""
    )
    if user is not None:
        for path in (directory, directory / "pgbouncer.ini"):
            os.chown(path, *user)
    port.release()
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        str(directory / "pgbouncer.ini"),
        **({} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}),
    )
    pooled = address._replace(netloc=f"postgres@127.0.0.1:{port.number}").geturl()
    try:
        async with asyncio.timeout(PATIENCE):
            while not await _answers(pooled):
                assert process.returncode is None
        yield pooled
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(directory)


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
