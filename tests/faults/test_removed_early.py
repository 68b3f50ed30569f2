"""The start of a log moves ahead of what is still needed, as when tiered storage deletes too early.

Breaks: a worker stands still while commands come; then all of them are removed (DeleteRecords), and it wakes up. In the
other scenario Postgres is restored to an earlier moment, and of the results that are ahead of it most are removed.
Must hold: commands that were removed before they were applied refuse their partition, and the message counts them;
results that were removed before they were compared do so until ``WAYPOST_ACCEPT_TRIMMED_RESULTS`` is set. Then the
worker catches up, compares what is left, and emits nothing twice; without the setting, the next one goes on.
"""

import asyncio
import re
import signal
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from tests.faults.backups import base_backup, restore
from tests.faults.scene import Scene
from tests.faults.test_topics_changed import admin
from tests.oracle.books import read_all

from waypost_worker.devserver import EmbeddedPostgres

pytestmark = pytest.mark.long
REMOVED = re.compile(r"retention removed (\d+) offsets before they were applied")


async def remove(stage: Scene, topic: str, ends: dict[int, int]) -> None:
    """Remove the records of each partition before these offsets."""
    records = {TopicPartition(topic, partition): RecordsToDelete(end) for partition, end in ends.items()}
    await admin(stage, lambda client: client.delete_records(records))


async def test_commands_removed_early(shared: Scene) -> None:
    (worker,) = await shared.crew(1)
    await shared.answered(100)
    worker.freeze()
    await shared.until(lambda: shared.lag() > 200)
    await shared.load.stop()
    commands = await shared.commands()
    ends = {partition: records[-1].offset + 1 for partition, records in commands.items()}
    await remove(shared, shared.topics.commands, ends)
    worker.thaw()
    # What it had fetched before is applied. Nothing of the rest can be.
    await shared.until(lambda: set(worker.refusals()) == set(ends))
    applied = await shared.applied()

    def counted() -> dict[int, int]:
        found = {partition: REMOVED.search(said) for partition, said in worker.refusals().items()}
        return {partition: int(one[1]) for partition, one in found.items() if one is not None}

    await shared.until(lambda: counted() == {one: ends[one] - applied[one] for one in ends})
    assert all(applied[one] < ends[one] for one in ends)
    await shared.judge_refused(commands)


async def test_results_removed_early(
    postgres_scene: Scene, breakable_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    stage = postgres_scene
    (worker,) = await stage.crew(1)
    await stage.answered(100)
    await asyncio.to_thread(base_backup, breakable_postgres, tmp_path / "backup")
    at_backup = await stage.applied()
    await stage.answered(400)
    await stage.load.stop()
    await stage.all_answered()
    assert await worker.end(signal.SIGTERM) == 0
    results = await read_all(stage.endpoints, stage.topics.results)
    assert all(stage.live.answered[one] > at_backup[one] for one in at_backup)
    breakable_postgres.kill()
    await asyncio.to_thread(restore, breakable_postgres, tmp_path / "backup")
    # The last results of each partition are left; its fence records are not counted.
    await remove(stage, stage.topics.results, {one: records[-5].offset for one, records in results.items()})
    unasked = await stage.worker()
    await stage.until(lambda: len(unasked.refusals()) == stage.partitions)
    for said in unasked.refusals().values():
        assert "before this worker could check whether they answer all applied commands" in said
        assert "WAYPOST_ACCEPT_TRIMMED_RESULTS=true once" in said
    assert await unasked.end(signal.SIGTERM) == 0
    accepting = await stage.worker(accept_trimmed_results="true")
    await stage.healed()
    assert not accepting.refusals()
    assert await accepting.end(signal.SIGTERM) == 0
    usual = await stage.worker()
    await stage.healed()
    assert not usual.refusals()
    await stage.judge(results=results)
