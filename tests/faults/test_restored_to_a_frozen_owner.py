"""Postgres is restored to the moment of an owner that stands still, after an heir with another producer id has worked.

Breaks: a worker freezes with a batch in hand that it has not committed, and a base backup is taken. The next worker
gets a new producer id, as if Kafka had forgotten the transactional id; it waits out the first one's trust and answers
every command. Then it dies, Postgres comes back with the backup's data, and the first worker wakes up. Its commit
succeeds, for in the restored database it is the owner, and no epoch of another producer id fences its own.
Must hold: before it appends, the first worker finds out that another owner has appended since; no command is answered
twice, none is lost, and all goes on within 30 s.
"""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.faults.backups import base_backup, restore
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedPostgres

pytestmark = pytest.mark.long
PROOF_LIFETIME = ("--proof-lifetime", "3")


async def test_restored_to_the_moment_of_a_frozen_owner(
    postgres_scene: Scene, breakable_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    stage = postgres_scene
    first = await stage.worker(*PROOF_LIFETIME, "--pooler", "--point", "batch-1-fetched", "--how", "stop")
    await stage.until(lambda: first.caught)
    await stage.load.stop()
    await asyncio.to_thread(base_backup, breakable_postgres, tmp_path / "backup")
    heir = await stage.worker(*PROOF_LIFETIME, "--new-producer-id")
    await stage.all_answered()
    await heir.end(signal.SIGKILL)
    breakable_postgres.kill()
    await asyncio.to_thread(restore, breakable_postgres, tmp_path / "backup")
    first.thaw()
    await stage.healed()
    await stage.judge()
    assert first.says("ForeignWriterError"), "it did not get so far as to append, so nothing was tested"
