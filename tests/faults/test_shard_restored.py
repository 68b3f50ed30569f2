"""One of two databases is restored to an earlier moment while the results topic is ahead of it; the other never went.

Breaks: a base backup of the second shard's Postgres; commands for both shards go on and are answered; then that
server is killed and comes back with the backup's data, while workers run on; or they are killed, and the next one is
killed in the middle of catching up.
Must hold: the restored shard's partitions are caught up from the log, and what was emitted is compared and not
emitted again; the other shard's answer all the time and nothing of theirs is done again; all goes on within 30 s.
"""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.faults.backups import base_backup, restore
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedPostgres

LIVING, RESTORED = 0, 1


@pytest.mark.long
@pytest.mark.parametrize("workers", ["running", "killed while catching up"])
async def test_a_shard_restored_to_an_earlier_moment(
    shards_scene: Scene, breakable_postgres: EmbeddedPostgres, tmp_path: Path, workers: str
) -> None:
    stage = shards_scene
    crew = await stage.crew(2)
    await stage.answered(100)
    await asyncio.to_thread(base_backup, breakable_postgres, tmp_path / "backup")
    at_backup = await stage.applied()
    await stage.answered(400)
    emitted = {one: stage.live.answered[one] for one in stage.partitions_of(RESTORED)}
    ahead = {one: emitted[one] - at_backup[one] for one in emitted}
    assert all(more > 0 for more in ahead.values()), f"nothing is ahead, so nothing was tested: {ahead}"
    await asyncio.to_thread(breakable_postgres.kill)
    if workers == "running":
        await stage.healed(stage.partitions_of(LIVING))
    else:
        for worker in crew:
            await worker.end(signal.SIGKILL)
    living = await stage.applied(stage.databases[LIVING])
    await asyncio.to_thread(restore, breakable_postgres, tmp_path / "backup")
    if workers != "running":
        for point in ("batch-4-committed", "acquire-3-tail-read", "batch-3-decided"):
            victim = await stage.worker("--point", point, batch_records="20")
            await stage.until(lambda victim=victim: not victim.alive)  # type: ignore[misc]
        await stage.worker()
    await stage.healed()
    now = await stage.applied(stage.databases[LIVING])
    assert all(now[one] >= position for one, position in living.items())
    await stage.judge()
