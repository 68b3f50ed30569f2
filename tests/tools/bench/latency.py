"""Publish to visible result, at fixed rates: an open-loop publisher and a default consumer around a system."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise

from tests.tools.bench.plan import PARTITIONS, BenchPlan
from tests.tools.bench.stage import SERVICES, Stage, System
from tests.tools.bench.usage import snapshot, spent

# Before the clock counts: first contact of every part with every other.
_WARM_UP = ("warm-up", 500, 1.5)
_LATE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one run at one rate: milliseconds, rising; ``late`` is how late the sends were (p50, p99).

    ``cpu_us`` is CPU time by role, in microseconds for each command.
    """

    rate: int
    ordered: list[float]
    late: tuple[float, float]
    cpu_us: dict[str, float]


async def measure(
    stage: Stage, which: System, plan: BenchPlan, partitions: int = PARTITIONS
) -> list[Latencies]:
    """Measure all rates of the plan in sequence, with one start of the system.

    Raises:
        RuntimeError: A result did not come.
    """
    phases = [_WARM_UP, *((str(rate), rate, plan.seconds) for rate in plan.rates)]
    counts = {str(label): int(rate * seconds) for label, rate, seconds in phases}
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground(partitions))
        await stage.checkpoint()
        child = await stack.enter_async_context(stage.system(which, ground))
        await stage.ready(which, ground, child)
        load = await stack.enter_async_context(ground.load("pace", phases=phases))
        await load.answer()
        # The publisher's first command was to connect it; the watcher begins behind its result.
        # A transaction's result is visible once the marker behind it is there; the watcher would count it else.
        others = partitions if which in SERVICES else 1 if which in stage.peers else 0
        await stage.until(ground, child, lambda held: held > others)
        isolation = "read_committed" if which in stage.peers else "read_uncommitted"
        watcher = await stack.enter_async_context(ground.watcher(sum(counts.values()), isolation))
        await watcher.answer()
        load.tell("go")
        marks = [snapshot({"loop": child.pid, "kafka": stage.kafka_pid}, stage.postmaster_pid)]
        while (told := await load.answer())["state"] == "ended":
            marks.append(snapshot({"loop": child.pid, "kafka": stage.kafka_pid}, stage.postmaster_pid))
        try:
            async with asyncio.timeout(_LATE_SECONDS):
                seen = await watcher.answer()
        except TimeoutError:
            watcher.tell("enough")
            seen = await watcher.answer()
        late = {phase["label"]: (phase["late_ms_p50"], phase["late_ms_p99"]) for phase in told["phases"]}
        latencies: dict[str, list[float]] = seen["latencies"]
        for label, count in counts.items():
            if len(latencies.get(label, [])) != count:
                raise RuntimeError(f"{which}: {count} commands, {len(latencies.get(label, []))} results seen")
        cpu = {
            label: {role: 1e6 * value / counts[label] for role, value in spent(before, after).items()}
            for label, (before, after) in zip(counts, pairwise(marks), strict=True)
        }
        return [
            Latencies(rate, sorted(latencies[str(rate)]), late[str(rate)], cpu[str(rate)])
            for rate in plan.rates
        ]
