"""Postgres is restored to an earlier moment while the results topic is ahead of it.

Breaks: a base backup (pg_basebackup of the running server); commands go on and are answered; then the server is
killed and comes back with the backup's data, while workers run on, or after they ended; or the next worker is
killed in the middle of catching up, so that yet another one goes on from a half-way position.
Must hold: what was emitted after the backup is compared and not emitted again; nothing is lost, doubled or out of
order; all goes on within 30 s.
"""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.faults.backups import base_backup, restore
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedPostgres


@pytest.mark.long
@pytest.mark.parametrize("workers", ["running", "ended", "killed while catching up"])
async def test_restored_to_an_earlier_moment(
    postgres_scene: Scene, breakable_postgres: EmbeddedPostgres, tmp_path: Path, workers: str
) -> None:
    stage = postgres_scene
    crew = await stage.crew(2)
    await stage.answered(100)
    await asyncio.to_thread(base_backup, breakable_postgres, tmp_path / "backup")
    at_backup = await stage.applied()
    await stage.answered(400)
    if workers != "running":
        for worker in crew:
            assert await worker.end(signal.SIGTERM) == 0
    emitted = dict(stage.live.answered)
    breakable_postgres.kill()
    assert any(emitted[one] > at_backup[one] for one in emitted), "nothing is ahead, so nothing was tested"
    await asyncio.to_thread(restore, breakable_postgres, tmp_path / "backup")
    if workers == "killed while catching up":
        # A batch is committed and only compared: killed after it, before it, and in the middle of taking over.
        for point in ("batch-4-committed", "batch-3-decided", "acquire-3-tail-read", "batch-4-committed"):
            victim = await stage.worker("--point", point, batch_records="20")
            await stage.until(lambda victim=victim: not victim.alive)  # type: ignore[misc]
    if workers != "running":
        await stage.worker()
    await stage.healed()
    await stage.judge()
