"""Commands per second, from commands in the topic to results in the topic.

Either all commands wait in the topic when the system starts, or a process publishes them as fast as Kafka
takes them while the system works.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.tools.bench.children import Child
from tests.tools.bench.plan import FROM_PART, PARTITIONS, TO_PART
from tests.tools.bench.stage import SERVICES, Ground, Stage, System
from tests.tools.bench.usage import snapshot, spent


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. ``cpu_us`` is CPU time by role, in microseconds for each command of the measured part.

    ``elsewhere_cores`` is how many of the machine's cores other processes kept busy. ``wal_bytes`` is how much Postgres
    wrote to its log per command over the whole run.
    """

    per_second: float
    seconds: float
    results: int
    rows: int
    cpu_us: dict[str, float] = field(default_factory=dict)
    elsewhere_cores: float = 0.0
    publish_per_second: float | None = None
    wal_bytes: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "per_second": round(self.per_second, 1),
            "seconds": round(self.seconds, 3),
            "results": self.results,
            "rows": self.rows,
            "cpu_us_per_command": {role: round(value, 1) for role, value in self.cpu_us.items()},
            "elsewhere_cores": round(self.elsewhere_cores, 2),
            "wal_bytes_per_command": round(self.wal_bytes),
            "publish_per_second": self.publish_per_second and round(self.publish_per_second, 1),
        }


async def measure(
    stage: Stage,
    which: System,
    commands: int,
    *,
    concurrent: bool = False,
    batch: int | None = None,
    partitions: int = PARTITIONS,
) -> Run:
    """One measurement on a fresh ground. RuntimeError if a result or a row is missing."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground(partitions))
        load = await stack.enter_async_context(ground.load("fill", commands=commands))
        await load.answer()
        publishing: asyncio.Task[dict[str, Any]] | None = None
        if not concurrent:
            load.tell("go")
            await load.answer()
        await stage.checkpoint()
        wal = await stage.wal_position()
        async with stage.system(which, ground, batch) as child:
            if concurrent:
                await stage.ready(which, ground, child)
                load.tell("go")
                publishing = asyncio.create_task(load.answer())
            cpu, elsewhere = await _watch(stage, which, ground, child, commands, load)
            times = await ground.committed(commands)
        published = None if publishing is None else commands / (await publishing)["seconds"]
        rows = await ground.rows(which)
        wal = await stage.wal_position() - wal
        if (len(times), rows) != (commands, commands):
            raise RuntimeError(f"{which}: {commands} commands, {len(times)} results, {rows} rows")
        first, last = int(commands * FROM_PART), int(commands * TO_PART) - 1
        seconds = (times[last] - times[first]) / 1000
        return Run(
            (last - first) / seconds,
            (times[-1] - times[0]) / 1000,
            len(times),
            rows,
            cpu,
            elsewhere,
            published,
            wal / commands,
        )


async def _watch(
    stage: Stage, which: System, ground: Ground, child: Child, commands: int, load: Child
) -> tuple[dict[str, float], float]:
    """Wait for the last result; CPU by role per command and cores busy elsewhere in the measured part."""
    # Workers that share partitions may fence one twice: what is counted here comes a record or two early.
    fences = ground.partitions if which in SERVICES else 0
    processes = {"loop": child.pid, "kafka": stage.kafka_pid, "load": load.pid}
    loop = asyncio.get_running_loop()
    marks = []
    for part in (FROM_PART, TO_PART):
        wanted = int(commands * part) + fences
        held = await stage.until(ground, child, lambda count, wanted=wanted: count >= wanted)  # type: ignore[misc]
        marks.append((held, loop.time(), snapshot(processes, stage.postmaster_pid)))
    await stage.until(ground, child, lambda count: count >= commands + fences)
    (held, began, before), (held_later, ended, after) = marks
    if held_later == held:
        return {}, 0.0
    seconds = spent(before, after)
    elsewhere = seconds.pop("elsewhere") / (ended - began)
    return {role: 1e6 * value / (held_later - held) for role, value in seconds.items()}, elsewhere
