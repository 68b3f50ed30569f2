"""A storm of workers that join, leave and die while the group has not settled from the last change.

Breaks: for many rounds a worker is started, drained or killed after less time than a rebalance takes.
Must hold: nothing is lost, doubled or out of order; every drain ends with 0; all goes on within 30 s after the
last change.
"""

import asyncio
import signal

import pytest
from tests.faults.processes import WorkerProcess
from tests.faults.scene import Scene, pick

MOST = 4


@pytest.mark.long
async def test_storm_of_joining_and_leaving(shared: Scene) -> None:
    await shared.crew(1)
    draining: list[asyncio.Task[int]] = []
    leaving: set[WorkerProcess] = set()
    for _ in range(16):
        await shared.for_a_while(shared.random.random() * 1.5)
        staying = [worker for worker in shared.alive if worker not in leaving]
        roll = shared.random.random()
        if len(staying) < 2 or (roll < 0.4 and len(staying) < MOST):
            await shared.worker()
            continue
        worker = pick(staying, shared.random)
        leaving.add(worker)
        if roll < 0.7 and worker.says("worker_ready"):
            draining.append(asyncio.create_task(worker.end(signal.SIGTERM)))
        else:
            await worker.end(signal.SIGKILL)
    await shared.healed()
    assert set(await asyncio.gather(*draining)) <= {0}
    await shared.judge()
