"""Replay into an empty schema, compared with the live worker that ran before it on the same topics.

Both process the same part of the commands: live by the broker's time of each result, replay by its commits. The
comparison with the results topic must cover all of it.
"""

import asyncio
import json
import resource
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from tests.tools.bench.plan import FROM_PART, TO_PART
from tests.tools.bench.stage import Ground, Stage

# 50 for each session: as many as it holds before retention removes any.
COMMANDS: Final = 300_000
SESSIONS: Final = 6_000
_SCHEMA: Final = "replayed"
_POLL_SECONDS: Final = 0.01
_PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Pair:
    """The commands per second of both; CPU of the replay's own processes in microseconds per command, including their
    start.
    """

    live: float
    replay: float
    cpu_us: float


async def pair(stage: Stage) -> Pair:
    """One live run, and a replay of what it left. RuntimeError if a result was not compared."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        async with ground.load("fill", commands=COMMANDS, sessions=SESSIONS) as load:
            await load.answer()
            load.tell("go")
            await load.answer()
        await stage.checkpoint()
        async with stage.system("service", ground):
            times = await ground.committed(COMMANDS)
        first, last = int(COMMANDS * FROM_PART), int(COMMANDS * TO_PART) - 1
        live = (last - first) * 1000 / (times[last] - times[first])
        await stage.checkpoint()
        replay, cpu_us = await _replay(stage, ground)
    return Pair(live, replay, cpu_us)


async def _replay(stage: Stage, ground: Ground) -> tuple[float, float]:
    cpu = _children_seconds()
    program = (sys.executable, "-m", "waypost_worker.cli", "replay", "--schema", _SCHEMA, "-o", "json")
    process = await asyncio.create_subprocess_exec(
        *program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=stage.worker_environment(ground),
    )
    watching = asyncio.create_task(_watch(ground, process))
    try:
        async with asyncio.timeout(_PATIENCE):
            told, said = await process.communicate()
            marks = await watching
    finally:
        watching.cancel()
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"the replay ended with {process.returncode}: {said.decode()[-500:]}")
    compared = sum(row["compared"] for row in json.loads(told))
    if compared != COMMANDS:
        raise RuntimeError(f"{COMMANDS} results, but the replay compared {compared}")
    (began, before), (ended, after) = marks
    return (after - before) / (ended - began), 1e6 * (_children_seconds() - cpu) / COMMANDS


async def _watch(ground: Ground, process: Any) -> tuple[tuple[float, int], tuple[float, int]]:
    """When the first commit beyond the first mark was seen, and the last one up to the second; with the counts."""
    connection: Any = await asyncpg.connect(ground.dsn)
    try:
        seen: list[tuple[float, int]] = []
        while process.returncode is None:
            done = await _done(connection)
            if done and (not seen or done > seen[-1][1]):
                seen.append((time.monotonic(), done))
            if done >= COMMANDS:
                break
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await connection.close()
    measured = [one for one in seen if COMMANDS * FROM_PART <= one[1] <= COMMANDS * TO_PART]
    if len(measured) < 2:
        raise RuntimeError(f"the replay committed too seldom to be measured: {seen}")
    return measured[0], measured[-1]


async def _done(connection: Any) -> int:
    try:
        return int(
            await connection.fetchval(f"select coalesce(sum(next_offset), 0) from {_SCHEMA}.partitions")
        )
    except asyncpg.UndefinedTableError:
        return 0


def _children_seconds() -> float:
    """CPU time of all child processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
