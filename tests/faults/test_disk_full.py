"""The disk is full: first Postgres's, then Kafka's. Each has a small file system (tmpfs) of its own.

Breaks: a file takes all that is left. Postgres refuses to extend tables, or stops when it can't write its log;
Kafka shuts down. Then the file is removed, and what stopped is started.
Must hold: no acknowledged command is missing; nothing is lost, doubled or out of order; all goes on within 30 s.

Mounting needs root; without it these scenarios are skipped.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.faults.conftest import OpenScene
from tests.support.servers import POSTGRES_SETTINGS, migrate_template

from waypost_worker.devserver import EmbeddedKafka, EmbeddedPostgres, Endpoints, Servers

pytestmark = pytest.mark.long

SIZE_MB = 256


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    options = f"size={SIZE_MB}m,mode=755"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(disk: Path) -> Path:
    """Take all that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    assert os.statvfs(disk).f_bavail == 0
    return ballast


async def test_full_disk_of_postgres(
    servers: Servers, tmp_path: Path, topic_prefix: str, open_scene: OpenScene
) -> None:
    # A log of two small segments, so that it meets the end of the disk soon.
    settings = {**POSTGRES_SETTINGS, "min_wal_size": "32MB", "max_wal_size": "48MB"}
    with small_disk(tmp_path / "disk") as disk:
        postgres = EmbeddedPostgres(disk / "postgres", settings=settings)
        postgres.start()
        try:
            dsn = postgres.create_database("full")
            migrate_template(dsn)
            async with open_scene(Endpoints(servers.endpoints.bootstrap_servers, dsn)) as stage:
                await stage.crew(2)
                await stage.answered(50)
                ballast = fill(disk)
                complaint = "No space left on device"
                await stage.until(lambda: complaint in postgres.log_path.read_text(errors="replace"), 60)
                await stage.for_a_while(5)
                ballast.unlink()
                if not postgres.running:
                    await asyncio.to_thread(postgres.restart)
                await stage.healed()
                await stage.judge()
        finally:
            postgres.stop()


async def test_full_disk_of_kafka(
    servers: Servers, tmp_path: Path, database: str, open_scene: OpenScene
) -> None:
    with small_disk(tmp_path / "disk") as disk, EmbeddedKafka(disk / "kafka") as kafka:
        async with open_scene(Endpoints(kafka.bootstrap_servers, database)) as stage:
            await stage.crew(2)
            await stage.answered(50)
            ballast = fill(disk)
            await stage.until(lambda: not kafka.running, 60)
            await stage.for_a_while(2)
            ballast.unlink()
            await asyncio.to_thread(kafka.restart)
            await stage.healed()
            await stage.judge()
