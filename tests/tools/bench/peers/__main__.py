"""``python -m tests.tools.bench.peers``: the service and its peers in one run, in pairs on the same servers.

Adds ``peers`` and its ratios to ``build/bench.json`` (a run of ``python -m tests.tools.bench`` comes first) and prints
a table. Needs an environment with the peers' packages, which ``make bench-full`` makes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.tools.bench import latency
from tests.tools.bench.children import Child, ChildFailedError
from tests.tools.bench.merging import measured, merge
from tests.tools.bench.peers import streams
from tests.tools.bench.plan import (
    DATA_BYTES,
    FROM_PART,
    POSTGRES_SETTINGS,
    SESSIONS,
    SHORT,
    TO_PART,
    BenchPlan,
)
from tests.tools.bench.report import at_least, at_most, paired_ratio, percentile, spread
from tests.tools.bench.stage import Ground, Stage, System
from tests.tools.bench.table import PEERS as TITLES
from tests.tools.bench.table import table

from waypost_worker.cli.worker.app import usable_cpus
from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers

TOPICS: Final[tuple[System, ...]] = ("service", "streams", "quix")
POOLS: Final = (4, 10, 20)
TASKS: Final = 50
THREADS: Final = (1, 3)
PROCESSES: Final = (1, 2)
RATE: Final = 1_000
# One probe of a size is noisier than what sizes differ by.
PROBES: Final = 3
TRIED: Final = ("service_processes", "streams_threads", "quix_processes", "saver_pools")


class Peers:
    """The measurements of one run, kept as they come."""

    def __init__(self, stage: Stage, python: Path, commands: int) -> None:
        self.stage = stage
        self.commands = commands
        self.rates: dict[str, list[float]] = {name: [] for name in TITLES}
        self.p50s: dict[str, list[float]] = {name: [] for name in TOPICS}
        self.p99s: dict[str, list[float]] = {name: [] for name in TOPICS}
        self.tried: dict[str, dict[int, list[float]]] = {what: {} for what in TRIED}
        self._python = python

    async def throughput(self, which: System, commands: int) -> float:
        """Return the commands per second from topic to topic, with all of them waiting when the system starts."""
        async with AsyncExitStack() as stack:
            ground = await stack.enter_async_context(self.stage.ground())
            load = await stack.enter_async_context(ground.load("fill", commands=commands))
            await load.answer()
            load.tell("go")
            await load.answer()
            await self.stage.checkpoint()
            await stack.enter_async_context(self.stage.system(which, ground))
            times = await ground.committed(commands)
        if len(times) != commands:
            raise RuntimeError(f"{which}: {commands} commands, {len(times)} results")
        first, last = int(commands * FROM_PART), int(commands * TO_PART) - 1
        return (last - first) * 1000 / (times[last] - times[first])

    async def saver(self, pool: int) -> dict[str, Any]:
        """Puts a second, and what one takes."""
        async with self.stage.ground() as ground:
            await self.stage.checkpoint()
            job = {
                "dsn": ground.dsn,
                "puts": max(2_000, self.commands // 20),
                "sessions": SESSIONS,
                "data_bytes": DATA_BYTES,
                "tasks": TASKS,
                "pool": pool,
            }
            program = [str(self._python), "-m", "tests.tools.bench.peers.saver", json.dumps(job)]
            async with Child("saver", {}, program=program) as child:
                return await child.answer()

    def tries(self, what: str, count: int, rate: float) -> None:
        """A rate at one of several sizes of a system."""
        self.tried[what].setdefault(count, []).append(round(rate, 1))
        say(f"{what.replace('_', ' ')}: {count}", f"{rate:,.0f}/s")

    def best(self, what: str) -> int:
        """The size that did best, by the median of its probes."""
        rates = self.tried[what]
        return max(rates, key=lambda size: median(rates[size]))

    async def warm_up(self, which: System, plan: BenchPlan) -> None:
        """Send traffic that does not count. A broker whose JIT compiler runs takes CPU time from the measured system,
        and each system makes it compile other paths.
        """
        await latency.measure(self.stage, which, replace(plan, rates=(RATE,), seconds=plan.warm_up))
        say(f"{TITLES[which]}, warm-up", "done")

    async def late(self, which: System, plan: BenchPlan) -> None:
        """Measure from publish to visible result at RATE commands per second."""
        told = await latency.measure(self.stage, which, replace(plan, rates=(RATE,)))
        self.p50s[which].append(percentile(told[0].ordered, 0.5))
        self.p99s[which].append(percentile(told[0].ordered, 0.99))

    def report(self) -> dict[str, Any]:
        """For bench.json."""
        return {
            "commands": self.commands,
            "warmed_up": True,
            "commands_per_second": {name: spread(values) for name, values in self.rates.items()},
            f"p50_ms_at_{RATE}_per_second": {name: spread(values, 2) for name, values in self.p50s.items()},
            f"p99_ms_at_{RATE}_per_second": {name: spread(values, 2) for name, values in self.p99s.items()},
            "tried": {
                what: {str(size): spread(rates) for size, rates in sizes.items()}
                for what, sizes in self.tried.items()
            },
        }

    def ratios(self) -> dict[str, Any]:
        """Return the project's promises compared with its peers; of the two with transactions, the better one of each
        repeat.
        """
        fastest = list(map(max, self.rates["streams"], self.rates["quix"]))
        soonest = list(map(min, self.p50s["streams"], self.p50s["quix"]))
        over_saver = paired_ratio(self.rates["service"], self.rates["saver"])
        over_streams = paired_ratio(self.rates["service"], fastest)
        p50 = paired_ratio(self.p50s["service"], soonest)
        return {
            "creates_service_over_saver": at_least(over_saver, 20),
            "creates_service_over_streams_or_quix": at_least(over_streams, 2),
            f"p50_service_over_streams_or_quix_at_{RATE}_per_second": at_most(p50, 0.2),
        }


def starters(
    python: Path, runtime: Any, threads: int, processes: int, scratch: Path
) -> dict[System, Callable[[Ground], Child]]:
    """Return how to start each peer on a ground."""

    def start_quix(ground: Ground) -> Child:
        job = json.dumps(
            {"bootstrap": ground.bootstrap, "prefix": ground.topics.prefix, "processes": processes}
        )
        return Child("quix", {}, program=[str(python), "-m", "tests.tools.bench.peers.quix", job])

    def start_streams(ground: Ground) -> Child:
        program = streams.command(runtime, ground.bootstrap, ground.topics.prefix, threads, scratch)
        return Child("streams", {}, program=program)

    return {"quix": start_quix, "streams": start_streams}


def say(what: str, value: str) -> None:
    """One line for each measurement."""
    print(f"  {what:<52}{value:>16}", file=sys.stderr, flush=True)


async def run(servers: Servers, build: Path, python: Path, plan: BenchPlan) -> dict[str, Any]:
    """All measurements, the systems in turn, added to the report: the whole report."""
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        runtime = streams.compiled(scratch / "classes")
        async with Stage(servers, build) as stage:
            peers = Peers(stage, python, plan.commands)
            sizes: dict[System, int] = {"cores": usable_cpus(), "service": 1}
            stage.peers = starters(python, runtime, THREADS[0], PROCESSES[0], scratch)
            for which in TOPICS:
                await peers.warm_up(which, plan)
            for _ in range(PROBES):
                for threads in THREADS:
                    stage.peers = starters(python, runtime, threads, 1, scratch)
                    rate = await peers.throughput("streams", plan.probe)
                    peers.tries("streams_threads", threads, rate)
                for processes in PROCESSES:
                    stage.peers = starters(python, runtime, 1, processes, scratch)
                    peers.tries("quix_processes", processes, await peers.throughput("quix", plan.probe))
                for workers, size in sizes.items():
                    peers.tries("service_processes", size, await peers.throughput(workers, plan.probe))
                for size in POOLS:
                    peers.tries("saver_pools", size, (await peers.saver(size))["per_second"])
            threads, processes = peers.best("streams_threads"), peers.best("quix_processes")
            stage.peers = starters(python, runtime, threads, processes, scratch)
            pool = peers.best("saver_pools")
            size = peers.best("service_processes")
            workers = next(which for which, processes in sizes.items() if processes == size)
            for repeat in range(plan.repeats):
                order = TOPICS if repeat % 2 == 0 else TOPICS[::-1]
                for which in order:
                    run = workers if which == "service" else which
                    peers.rates[which].append(await peers.throughput(run, plan.commands))
                    say(TITLES[which], f"{peers.rates[which][-1]:,.0f}/s")
                peers.rates["saver"].append((await peers.saver(pool))["per_second"])
                say(TITLES["saver"], f"{peers.rates['saver'][-1]:,.0f}/s")
                for which in order:
                    await peers.late(which, plan)
                    say(f"{TITLES[which]}, p50 at {RATE}/s", f"{peers.p50s[which][-1]:.1f} ms")
            when = measured(await stage.postgres_facts())
    found = {**peers.report(), "configuration": {"plan": plan.to_dict()}, "measured": when}
    return merge(build, {**when, "peers": found}, peers.ratios())


def main() -> int:
    """Start servers, measure, add to the report, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.peers", description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="a Python with the peers' packages")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--commands", type=int, default=100_000)
    asked = parser.parse_args()
    # As long as sessions hold what they get: who joins a group when, and what a virtual machine compiles when,
    # should matter little. A choice of size deserves no less than what is measured then.
    plan = replace(SHORT, repeats=asked.repeats, commands=asked.commands, probe=asked.commands)
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("the service and its peers, about 15 minutes …", file=sys.stderr)
    try:
        with Servers(
            kafka=ClusterOptions(profile=THROUGHPUT), postgres_settings=POSTGRES_SETTINGS
        ) as servers:
            report = asyncio.run(run(servers, build, asked.python, plan))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nthe benchmark can't continue, nothing was written: {error!r}", file=sys.stderr)
        return 1
    print(table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
