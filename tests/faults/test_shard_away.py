"""One of two databases is away, and its partitions with it; the other database's go on.

Breaks: under load, the second shard's Postgres is killed (SIGKILL), or frozen (SIGSTOP) for longer than
workers wait. Meanwhile workers run on; or one of them is killed, and those that are left
take over what they can; or all are killed, and new ones start while the shard is away.
Must hold: partitions of the living shard answer all the time, and where no worker was hit no term of theirs ends;
those of the other go on within 30 s after it is back; nothing is lost, doubled or out of order in either.
"""

import asyncio
import signal

import pytest
from tests.faults.processes import REQUEST_TIMEOUT
from tests.faults.scene import Scene

from waypost_worker.devserver import EmbeddedPostgres

LIVING, AWAY = 0, 1


def end(postgres: EmbeddedPostgres, how: str) -> None:
    if how == "frozen":
        postgres.suspend()
    else:
        postgres.kill()


def bring_back(postgres: EmbeddedPostgres, how: str) -> None:
    if how == "frozen":
        postgres.resume()
    else:
        postgres.restart()


async def still_away(stage: Scene, how: str) -> None:
    """What is published for the shard that is away waits: a commit that it may have had in hand is over."""
    await stage.for_a_while(2 * REQUEST_TIMEOUT if how == "frozen" else 1)
    before = {one: stage.live.answered[one] for one in stage.partitions_of(AWAY)}
    marks = [await stage.load.mark(one) for one in before]
    await stage.healed(stage.partitions_of(LIVING))
    assert {one: stage.live.answered[one] for one in before} == before
    assert all(mark > before[one] for mark, one in zip(marks, before, strict=True))


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.long)])
async def test_a_shard_away_stops_only_its_own_partitions(
    shards_scene: Scene, breakable_postgres: EmbeddedPostgres, how: str
) -> None:
    stage = shards_scene
    await stage.crew(2)
    await stage.answered(100)
    living = stage.partitions_of(LIVING)
    terms = {one: stage.live.terms[one] for one in living}
    for _ in range(2):
        await asyncio.to_thread(end, breakable_postgres, how)
        try:
            await stage.healed(living)
            await still_away(stage, how)
        finally:
            await asyncio.to_thread(bring_back, breakable_postgres, how)
        await stage.healed()
    assert {one: stage.live.terms[one] for one in living} == terms
    await stage.judge()


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("left", [1, 0])
async def test_workers_are_killed_while_a_shard_is_unreachable(
    shards_scene: Scene, breakable_postgres: EmbeddedPostgres, how: str, left: int
) -> None:
    stage = shards_scene
    crew = await stage.crew(2)
    await stage.answered(100)
    await asyncio.to_thread(end, breakable_postgres, how)
    try:
        for worker in crew[left:]:
            await worker.end(signal.SIGKILL)
        for _ in crew[left:]:
            await stage.worker()
        # Taken over, or started, without the shard.
        await stage.healed(stage.partitions_of(LIVING))
        await still_away(stage, how)
    finally:
        await asyncio.to_thread(bring_back, breakable_postgres, how)
    await stage.healed()
    await stage.judge()
