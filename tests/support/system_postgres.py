"""A PostgreSQL server of the operating system's programs, whichever ``pg_config`` belongs to or Debian keeps."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.postgres_programs import User, give, unprivileged_user

DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class SystemPostgres:
    """``directory`` holds the Unix socket and the data."""

    directory: Path
    port: int


async def programs() -> Path:
    """Where the system's server programs are; skips without them."""
    for directory in [*await _configured(), *_debians()]:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    pytest.skip(
        "the system has no PostgreSQL server (Debian's package postgresql): only the embedded one was tested"
    )


def _debians() -> list[Path]:
    return sorted(DEBIAN.glob("*/bin"), reverse=True)


async def _configured() -> list[Path]:
    found = shutil.which("pg_config")
    if found is None:
        return []
    asked = await asyncio.create_subprocess_exec(
        found, "--bindir", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    told, _ = await asked.communicate()
    return [Path(told.decode().strip())]


@asynccontextmanager
async def system_postgres(
    files: Mapping[str, bytes] | None = None, settings: Sequence[str] = ()
) -> AsyncIterator[SystemPostgres]:
    """A server with ``files`` in its data directory and these ``settings``, until the block ends."""
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
            *(f"--pgdata={name}/data", "--auth=trust", "--username=postgres", "--encoding=UTF8"),
            *("--no-locale", "--no-sync"),
            **options,
        )
        assert await made.wait() == 0
        for file, content in (files or {}).items():
            _put(Path(name, "data", file), content, user)
        port = Port(0)
        number = port.number
        port.release()
        server = await asyncio.create_subprocess_exec(
            str(binaries / "postgres"),
            *("-D", f"{name}/data", "-p", str(number), "-c", f"unix_socket_directories={name}"),
            *("-c", "fsync=off"),
            *(word for setting in settings for word in ("-c", setting)),
            **options,
        )
        try:
            async with asyncio.timeout(60):
                while not await _answers(name, number):
                    assert server.returncode is None
            yield SystemPostgres(Path(name), number)
        finally:
            server.terminate()
            await server.wait()


def _put(path: Path, content: bytes, user: User | None) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    give(path, user)


async def _answers(directory: str, port: int) -> bool:
    try:
        connection = await asyncpg.connect(host=directory, port=port, user="postgres", database="postgres")
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True
