"""The disk of the new Postgres is full in the middle of a restore.

Breaks: a file leaves less room than the snapshot needs; Postgres refuses to extend a table, or stops since it can't
write its log. Then the file is removed, and what stopped is started.
Must hold: one line that says why, nothing of the snapshot in the database, and a second try that ends well.

Mounting needs root; without it this scenario is skipped.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.cli import CommandLine
from tests.faults.test_disk_full import fill, small_disk
from tests.servers import POSTGRES_SETTINGS

from waypost_worker.devserver import EmbeddedPostgres, Servers

pytestmark = pytest.mark.long
ROWS = 8000  # of 4 KB that don't compress
LEFT_MB = 12

FILL = (
    "insert into waypost.partitions (partition, partitions, next_offset) values (0, 1, 0)",
    "insert into waypost.sessions (session_id, partition, counter, checkpoints, first_recorded_at, last_recorded_at) "
    f"values ('s', 0, {ROWS}, {ROWS}, now(), now())",
    "insert into waypost.checkpoints (session_id, number, name, taken_at, recorded_at, data, metadata, pinned, "
    "command_id, position) select 's', n, 'n', now(), now(), "
    "(select string_agg(decode(md5(n || '-' || i), 'hex'), '') from generate_series(1, 256) i), '{}', false, "
    f"n::text, n from generate_series(1, {ROWS}) n",
)


async def rows(dsn: str) -> int:
    connection: Any = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("select to_regclass('waypost.checkpoints')") is None:
            return 0
        return int(await connection.fetchval("select count(*) from waypost.checkpoints"))
    finally:
        await connection.close()


async def up(postgres: EmbeddedPostgres, dsn: str) -> None:
    """Wait until it takes connections again, by itself or started anew."""
    async with asyncio.timeout(60):
        while True:
            if not postgres.running:
                await asyncio.to_thread(postgres.restart)
            try:
                await (await asyncpg.connect(dsn)).close()
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.1)
            else:
                return


async def test_full_disk_of_a_restore(servers: Servers, database: str, tmp_path: Path) -> None:
    source: Any = await asyncpg.connect(database)
    for statement in FILL:
        await source.execute(statement)
    await source.close()
    line = CommandLine(tmp_path, {"WAYPOST_SNAPSHOTS": str(tmp_path / "snapshots")})
    made = await asyncio.to_thread(line.run, "snapshot", "create", "--postgres-dsn", database)
    assert made.code == 0, made.err
    settings = {**POSTGRES_SETTINGS, "min_wal_size": "32MB", "max_wal_size": "48MB"}
    with small_disk(tmp_path / "disk") as disk:
        postgres = EmbeddedPostgres(disk / "postgres", settings=settings)
        postgres.start()
        try:
            dsn = postgres.create_database("full")
            restore = ("snapshot", "restore", "--offline", "--postgres-dsn", dsn)
            ballast = fill(disk)
            os.truncate(ballast, ballast.stat().st_size - LEFT_MB * 1024 * 1024)
            ended = await asyncio.to_thread(line.run, *restore)
            assert (ended.code, ended.out) == (1, "")
            assert ended.err.splitlines()[-1].startswith("waypost: Postgres at ")
            complaint = "No space left on device"
            assert complaint in ended.err or complaint in postgres.log_path.read_text(errors="replace")
            ballast.unlink()
            await up(postgres, dsn)
            assert await rows(dsn) == 0
            assert (await asyncio.to_thread(line.run, *restore)).code == 0
            assert await rows(dsn) == ROWS
        finally:
            postgres.stop()
