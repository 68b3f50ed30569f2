"""All workers are gone while agents go on publishing, and nobody has noticed.

Breaks: every worker is killed under load. What agents publish waits in the topic.
Must hold: ``waypost doctor`` says that no worker is running and how many commands wait, as an error; with one worker
again, all of them are answered within 30 s, and ``doctor`` finds nothing wrong with workers; nothing is lost, doubled
or out of order.
"""

import asyncio
from typing import Any

import pytest
from tests.faults.scene import Scene


async def workers(stage: Scene) -> dict[str, Any]:
    """What doctor says of the workers."""
    found = await asyncio.to_thread(stage.command_line().run, "doctor", "-o", "json")
    (finding,) = [one for one in found.json if one["subject"] == "workers"]
    return dict(finding)


@pytest.mark.long
async def test_no_worker_runs(shared: Scene) -> None:
    await shared.crew(2)
    await shared.answered(100)
    await shared.kill_all()
    await shared.until(lambda: shared.lag() > 50)
    await shared.load.stop()

    async def noticed() -> bool:  # the group forgets its members once their sessions have ended
        return bool((await workers(shared))["level"] == "error")

    await shared.until(noticed)
    commands, applied = await shared.commands(), await shared.applied()
    waiting = sum(
        record.offset >= applied.get(partition, 0)
        for partition, records in commands.items()
        for record in records
    )
    found = await workers(shared)
    assert (
        f"no worker is running in the group '{shared.topics.prefix}', and {waiting:,} commands wait"
        in str(found)
    )
    assert "waypost worker" in str(found)
    await shared.worker()
    await shared.healed()
    assert (await workers(shared))["level"] == "ok"
    await shared.judge()
