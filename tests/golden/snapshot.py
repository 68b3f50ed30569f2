"""The snapshot of a format: ``snapshot/``, taken of its database, brought up to date, by the version that wrote it."""

from pathlib import Path
from typing import Any

import asyncpg

from waypost import Topics
from waypost_worker.postgres.migrate import migrate
from waypost_worker.snapshots.create import create
from waypost_worker.snapshots.storage import DirectoryStorage


async def write_snapshot(dsn: str, folder: Path, name: str) -> None:
    """Take it. Pieces are small, so that there are several."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        await migrate(connection)
        storage = DirectoryStorage(folder / "snapshot")
        await create([connection], storage, Topics(f"golden-{name}"), "waypost", lambda *_: None, 4000)
    finally:
        await connection.close()
