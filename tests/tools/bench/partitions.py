"""``python -m tests.tools.bench.partitions``: what a deployment's partitions cost, at 3, 24 and 96 of them.

One worker and the bare loop in turn, on the same servers: latency and CPU time at steady rates, creates from a backlog,
connections, CPU time without any load, and how long a worker takes to acquire all partitions. Adds ``partitions`` and
its ratios to ``build/bench.json``.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.tools.bench import latency, throughput
from tests.tools.bench.children import ChildFailedError
from tests.tools.bench.merging import measured, merge
from tests.tools.bench.plan import POSTGRES_SETTINGS, SHORT
from tests.tools.bench.report import (
    PAIR,
    at_least,
    at_most,
    latency_figures,
    paired_ratio,
    plain_figure,
    spread,
)
from tests.tools.bench.stage import Stage
from tests.tools.bench.table import table
from tests.tools.bench.usage import connected_ports, snapshot, spent

from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers

COUNTS: Final = (3, 24, 96)
RATES: Final = (200, 1_000)
_IDLE_SECONDS: Final = 8.0
_SETTLED_SECONDS: Final = 3.0
# The cost of a create for all processes that serve it, without the load's own CPU time.
_SERVING: Final = ("loop", "kafka", "postgres_backends", "postgres_background")
_PROMISED: Final = {24: 1.3, 96: 2.0}


async def idle(stage: Stage, partitions: int) -> dict[str, float]:
    """A worker without commands: its connections by server, shares of a core, and seconds to acquire all partitions.

    The latter are counted from the start of the process, which takes a second by itself.
    """
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground(partitions))
        loop = asyncio.get_running_loop()
        began = loop.time()
        child = await stack.enter_async_context(stage.system("service", ground))
        await stage.ready("service", ground, child)
        seconds = loop.time() - began
        await asyncio.sleep(_SETTLED_SECONDS)
        processes = {"loop": child.pid, "kafka": stage.kafka_pid}
        before = snapshot(processes, stage.postmaster_pid)
        await asyncio.sleep(_IDLE_SECONDS)
        used = spent(before, snapshot(processes, stage.postmaster_pid))
        kafka = int(stage.bootstrap.rpartition(":")[2])
        ports = connected_ports(child.pid)
    return {
        "acquired_seconds": seconds,
        "kafka_connections": ports.count(kafka),
        "connections": len(ports),
        "worker_percent": 100 * used["loop"] / _IDLE_SECONDS,
        "kafka_percent": 100 * used["kafka"] / _IDLE_SECONDS,
    }


async def steady(stage: Stage, partitions: int, seconds: float) -> dict[str, list[latency.Latencies]]:
    """Both systems at all rates."""
    plan = replace(SHORT, rates=RATES, seconds=seconds)
    return {which: await latency.measure(stage, which, plan, partitions) for which in PAIR}


class Measurements:
    """The measurements so far, by number of partitions, system and rate."""

    def __init__(self) -> None:
        self.latencies: dict[tuple[int, str, int], list[list[float]]] = {}
        self.cpu_us: dict[tuple[int, str, int], list[float]] = {}
        self.backlog: dict[tuple[int, str], list[float]] = {}
        self.idle: dict[int, list[dict[str, float]]] = {}

    def p50s(self, partitions: int, which: str, rate: int) -> list[float]:
        """Return the median latency of each run, in milliseconds."""
        return [median(run) for run in self.latencies[partitions, which, rate]]

    def to_dict(self) -> dict[str, Any]:
        """For the report, by number of partitions."""
        return {str(count): self._of(count) for count in self.idle}

    def _of(self, count: int) -> dict[str, Any]:
        names = self.idle[count][0]
        return {
            "latency": {
                str(rate): {
                    which: {
                        **latency_figures(self.latencies[count, which, rate]),
                        "cpu_us_per_command": spread(self.cpu_us[count, which, rate]),
                    }
                    for which in PAIR
                }
                for rate in RATES
            },
            "backlog_per_second": {which: spread(self.backlog[count, which]) for which in PAIR},
            "idle": {name: spread([one[name] for one in self.idle[count]], 2) for name in names},
        }

    def ratios(self) -> dict[str, Any]:
        """Return the promises for a growing deployment, each with its target."""
        few = COUNTS[0]
        found: dict[str, Any] = {}
        for count, most in _PROMISED.items():
            found[f"p50_at_1000_per_second_with_{count}_partitions_over_{few}"] = at_most(
                paired_ratio(self.p50s(count, "service", 1000), self.p50s(few, "service", 1000)), most
            )
        for rate in RATES:
            found[f"cpu_at_{rate}_per_second_with_24_partitions_over_{few}"] = paired_ratio(
                self.cpu_us[24, "service", rate], self.cpu_us[few, "service", rate]
            )
            for count in COUNTS:
                found[f"cpu_at_{rate}_per_second_with_{count}_partitions_service_over_bare"] = paired_ratio(
                    self.cpu_us[count, "service", rate], self.cpu_us[count, "bare", rate]
                )
        found["p50_service_over_bare_at_1000_per_second_with_24_partitions"] = at_most(
            paired_ratio(self.p50s(24, "service", 1000), self.p50s(24, "bare", 1000)), 0.5
        )
        found[f"backlog_with_96_partitions_over_{few}"] = at_least(
            paired_ratio(self.backlog[96, "service"], self.backlog[few, "service"]), 0.9
        )
        for name, unit, most in (
            ("kafka_connections", "", 10),
            ("worker_percent", "% of a core", 2),
            ("acquired_seconds", "s", 1.5),
        ):
            values = [one[name] for one in self.idle[96]]
            found[f"idle_{name}_with_96_partitions"] = at_most(plain_figure(values, unit), most)
        return found


async def measure(stage: Stage, repeats: int, seconds: float, commands: int) -> Measurements:
    """All figures, numbers of partitions in turn."""
    found = Measurements()
    warm_up = replace(SHORT, rates=RATES[-1:], seconds=SHORT.warm_up)
    await latency.measure(stage, "service", warm_up)
    for repeat in range(repeats):
        for count in COUNTS if repeat % 2 == 0 else COUNTS[::-1]:
            rest = await idle(stage, count)
            found.idle.setdefault(count, []).append(rest)
            say(count, "idle", f"{rest['kafka_connections']:.0f} conn. {rest['worker_percent']:.1f} %")
            say(count, "all acquired", f"{rest['acquired_seconds']:.1f} s")
            for which, runs in (await steady(stage, count, seconds)).items():
                for run in runs:
                    cpu = sum(run.cpu_us[role] for role in _SERVING)
                    found.latencies.setdefault((count, which, run.rate), []).append(run.ordered)
                    found.cpu_us.setdefault((count, which, run.rate), []).append(cpu)
                    say(count, f"{which} at {run.rate:,}/s", f"{median(run.ordered):.1f} ms {cpu:,.0f} us")
        for count in COUNTS if repeat % 2 == 0 else COUNTS[::-1]:
            for which in PAIR:
                taken = await throughput.measure(stage, which, commands, partitions=count)
                found.backlog.setdefault((count, which), []).append(taken.per_second)
                say(count, f"{which}, backlog", f"{taken.per_second:,.0f}/s")
    return found


def say(partitions: int, what: str, value: str) -> None:
    """One line for each measurement."""
    print(f"  {partitions:>3} partitions, {what:<28}{value:>26}", file=sys.stderr, flush=True)


async def run(servers: Servers, build: Path, asked: argparse.Namespace) -> Mapping[str, Any]:
    """The measurements, added to the report: the whole report."""
    async with Stage(servers, build) as stage:
        found = await measure(stage, asked.repeats, asked.seconds, asked.commands)
        when = measured(await stage.postgres_facts())
    part = {"counts": found.to_dict(), "measured": when, "repeats": asked.repeats}
    return merge(build, {**when, "partitions": part}, found.ratios())


def main(arguments: Sequence[str] | None = None) -> int:
    """Start servers, measure, add to the report, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.partitions", description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate")
    parser.add_argument("--commands", type=int, default=100_000, help="of each backlog")
    asked = parser.parse_args(arguments)
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("a worker of 3, 24 and 96 partitions, some five minutes for each repeat …", file=sys.stderr)
    try:
        with Servers(
            kafka=ClusterOptions(profile=THROUGHPUT), postgres_settings=POSTGRES_SETTINGS
        ) as servers:
            report = asyncio.run(run(servers, build, asked))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nthe benchmark can't continue, nothing was written: {error!r}", file=sys.stderr)
        return 1
    print(table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
