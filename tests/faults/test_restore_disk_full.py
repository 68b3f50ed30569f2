"""The disk of the new Postgres is full in the middle of a restore, or of a replay.

Breaks: a file leaves less room than is needed; Postgres refuses to extend a table, or stops since it can't write its
log. Then the file is removed, and what stopped is started.
Must hold: one line that says why, nothing of a snapshot in the database, and a second try that ends well.

Mounting needs root; without it this scenario is skipped.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from tests.faults.test_disk_full import fill, small_disk
from tests.support import workload
from tests.support.cli import CommandLine, Outcome
from tests.support.servers import POSTGRES_SETTINGS

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


@contextmanager
def small_postgres(at: Path) -> Iterator[tuple[EmbeddedPostgres, str, Path]]:
    """A Postgres with an empty database, and the file that leaves it little room."""
    settings = {**POSTGRES_SETTINGS, "min_wal_size": "32MB", "max_wal_size": "48MB"}
    with small_disk(at) as disk:
        postgres = EmbeddedPostgres(disk / "postgres", settings=settings)
        postgres.start()
        try:
            dsn = postgres.create_database("full")
            ballast = fill(disk)
            os.truncate(ballast, ballast.stat().st_size - LEFT_MB * 1024 * 1024)
            yield postgres, dsn, ballast
        finally:
            postgres.stop()


async def complained(ended: Outcome, postgres: EmbeddedPostgres) -> bool:
    log = await asyncio.to_thread(postgres.log_path.read_text, errors="replace")
    complaint = "No space left on device"
    return complaint in ended.err or complaint in log


async def test_full_disk_of_a_replay(servers: Servers, topic_prefix: str, tmp_path: Path) -> None:
    with small_postgres(tmp_path / "disk") as (postgres, dsn, ballast):
        line = CommandLine(
            tmp_path,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": dsn,
                "WAYPOST_TOPIC_PREFIX": topic_prefix,
            },
        )
        made = await asyncio.to_thread(
            line.run, "topics", "create", "--partitions", "2", "--skip-zombie-test"
        )
        assert made.code == 0, made.err
        producer = AIOKafkaProducer(bootstrap_servers=servers.kafka.bootstrap_servers)
        await producer.start()
        await workload.publish(producer, f"{topic_prefix}.commands", workload.creates(1, 20_000, 2, 400))
        await producer.stop()
        ended = await asyncio.to_thread(line.run, "replay")
        assert ended.code == 1, ended
        assert ended.err.splitlines()[-1].startswith("waypost: ")
        assert await complained(ended, postgres)
        ballast.unlink()
        await up(postgres, dsn)
        again = await asyncio.to_thread(line.run, "replay")
        assert again.code == 0, again.err
        assert (await asyncio.to_thread(line.run, "verify")).code == 0
        assert await rows(dsn) > 10_000


async def test_full_disk_of_a_restore(servers: Servers, database: str, tmp_path: Path) -> None:
    source: Any = await asyncpg.connect(database)
    for statement in FILL:
        await source.execute(statement)
    await source.close()
    line = CommandLine(tmp_path, {"WAYPOST_SNAPSHOTS": str(tmp_path / "snapshots")})
    made = await asyncio.to_thread(line.run, "snapshot", "create", "--postgres-dsn", database)
    assert made.code == 0, made.err
    with small_postgres(tmp_path / "disk") as (postgres, dsn, ballast):
        restore = ("snapshot", "restore", "--offline", "--postgres-dsn", dsn)
        ended = await asyncio.to_thread(line.run, *restore)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.splitlines()[-1].startswith("waypost: Postgres at ")
        assert await complained(ended, postgres)
        ballast.unlink()
        await up(postgres, dsn)
        assert await rows(dsn) == 0
        assert (await asyncio.to_thread(line.run, *restore)).code == 0
        assert await rows(dsn) == ROWS
