"""Workers are killed and frozen at random moments under load.

Breaks: three workers; again and again one of them is killed (and replaced) or frozen for longer than its session,
so that others take its partitions and it wakes up as a stranger.
Must hold: nothing is lost, doubled or out of order; all partitions go on within 30 s after the last blow; nobody
leaks what a lost term held.
"""

import pytest
from tests.faults.processes import SESSION_TIMEOUT
from tests.faults.scene import Scene, pick


async def blow(stage: Scene, how: str) -> None:
    await stage.for_a_while(stage.random.random() * 2)
    victim = pick(stage.alive, stage.random)
    if how == "kill":
        victim.process.kill()  # type: ignore[union-attr]
        await stage.until(lambda: not victim.alive)
        await stage.worker()
    else:
        victim.freeze()
        await stage.for_a_while(SESSION_TIMEOUT * (1.2 + stage.random.random()))
        victim.thaw()


@pytest.mark.long
@pytest.mark.parametrize("how", ["kill", "stop", "both"])
async def test_random_blows(shared: Scene, how: str) -> None:
    await shared.crew(3)
    for _ in range(6):
        await blow(shared, shared.random.choice(("kill", "stop")) if how == "both" else how)
    await shared.healed()
    await shared.judge()
