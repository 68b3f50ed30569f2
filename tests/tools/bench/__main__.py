"""``python -m tests.tools.bench``: measure, write ``build/bench.json`` and its charts, print a table.

Results of ``tests.tools.bench.shapes`` and ``tests.tools.bench.peers`` in it stay.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tests.tools.bench import latency, throughput
from tests.tools.bench.children import Child, ChildFailedError
from tests.tools.bench.merging import REPORT, measured, merge
from tests.tools.bench.plan import FULL, POSTGRES_SETTINGS, SHORT, BenchPlan
from tests.tools.bench.report import MODES, PAIR, TITLES, latency_figures, percentile, ratios, spread
from tests.tools.bench.stage import Stage, System
from tests.tools.bench.table import table

from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers

_T = TypeVar("_T")
SYSTEMS: tuple[System, ...] = ("bare", "service", "cores")
_COPY_BATCHES = (500, 2_000)


class ProgressLine:
    """One line for each measurement, as it ends."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()

    async def step(self, what: str, work: Awaitable[_T], said: Callable[[_T], str]) -> _T:
        """Do one measurement and say what came of it."""
        print(f"[{self._done + 1:>2}/{self._steps}] {what:<50}", end="", file=sys.stderr, flush=True)
        outcome = await work
        self._done += 1
        elapsed = time.monotonic() - self._began
        print(f"{said(outcome):>14}  {elapsed:>4.0f} s", file=sys.stderr, flush=True)
        return outcome


async def bench(stage: Stage, plan: BenchPlan) -> dict[str, Any]:
    """All measurements of a run; the two systems always in turn."""
    progress = ProgressLine(
        len(plan.batches) + 2 + plan.repeats * (len(MODES) * len(SYSTEMS) + len(PAIR) + len(_COPY_BATCHES))
    )

    def rate(run: throughput.Run) -> str:
        return f"{run.per_second:,.0f}/s"

    # The first measurements find the bare loop's best batch size, and warm the broker's compiler up.
    tried: dict[int, throughput.Run] = {}
    for batch in plan.batches:
        work = throughput.measure(stage, "bare", plan.probe, batch=batch)
        tried[batch] = await progress.step(f"bare loop tries batches of {batch}", work, rate)
    stage.batch = max(tried, key=lambda batch: tried[batch].per_second)
    await progress.step("service, warm-up", throughput.measure(stage, "service", plan.probe), rate)
    # Small requests take other paths through the broker, which are compiled after a while only.
    warm_up = replace(plan, rates=(plan.rates[-1],), seconds=plan.warm_up)
    await progress.step("latency, warm-up", latency.measure(stage, "service", warm_up), _p50s)

    runs: dict[str, dict[str, list[throughput.Run]]] = {
        mode: {system: [] for system in SYSTEMS} for mode in MODES
    }
    copies: dict[str, list[float]] = {str(batch): [] for batch in _COPY_BATCHES}
    late: dict[str, dict[str, list[latency.Latencies]]] = {
        str(rate): {system: [] for system in PAIR} for rate in plan.rates
    }
    # Before the large runs, because their topics are deleted a minute after them, which blocks every commit.
    for repeat in range(plan.repeats):
        for one in PAIR if repeat % 2 == 0 else PAIR[::-1]:
            told = await progress.step(f"{TITLES[one]}, latency", latency.measure(stage, one, plan), _p50s)
            for figures in told:
                late[str(figures.rate)][one].append(figures)
    for repeat in range(plan.repeats):
        # In reverse order each time, so that neither always starts after the other's unflushed writes.
        order = SYSTEMS if repeat % 2 == 0 else SYSTEMS[::-1]
        for mode, title in MODES.items():
            for system in order:
                work = throughput.measure(stage, system, plan.commands, concurrent=mode == "concurrent")
                runs[mode][system].append(await progress.step(f"{TITLES[system]}, {title}", work, rate))
        for batch in _COPY_BATCHES:
            copied = await progress.step(
                f"COPY alone, batches of {batch}",
                copy_alone(stage, plan.rows, batch),
                lambda v: f"{v:,.0f}/s",
            )
            copies[str(batch)].append(copied)
    return {"tried": tried, "throughput": runs, "copy": copies, "latency": late}


def _p50s(told: list[latency.Latencies]) -> str:
    return " ".join(f"{percentile(one.ordered, 0.5):.1f}" for one in told) + " ms"


async def copy_alone(stage: Stage, rows: int, batch: int) -> float:
    """Rows a second."""
    async with stage.ground() as ground:
        await stage.checkpoint()
        async with Child(
            "tests.tools.bench.copying", {"dsn": ground.dsn, "rows": rows, "batch": batch}
        ) as child:
            return float((await child.answer())["rows_per_second"])


def make_report(
    plan: BenchPlan, taken: dict[str, Any], batch: int, postgres: dict[str, str]
) -> dict[str, Any]:
    """This run's part of bench.json."""
    throughputs = {
        mode: {
            system: {
                "spread": spread([run.per_second for run in runs]),
                "runs": [run.to_dict() for run in runs],
            }
            for system, runs in systems.items()
        }
        for mode, systems in taken["throughput"].items()
    }
    latencies = {
        rate: {
            system: {
                **latency_figures([run.ordered for run in runs]),
                "sent_late_ms": {
                    "p50": max(run.late[0] for run in runs),
                    "p99": max(run.late[1] for run in runs),
                },
            }
            for system, runs in systems.items()
        }
        for rate, systems in taken["latency"].items()
    }
    everything = [
        run for systems in taken["throughput"].values() for runs in systems.values() for run in runs
    ]
    when = measured(postgres)
    return {
        **when,
        "configuration": {
            "plan": plan.to_dict(),
            "bare_loop_batch": batch,
            "service": "a worker's defaults",
            "kafka_jvm": THROUGHPUT.options,
            "postgres": postgres,
            "postgres_settings": POSTGRES_SETTINGS,
        },
        "throughput": throughputs,
        "bare_loop_batches_tried": {str(size): run.to_dict() for size, run in taken["tried"].items()},
        "copy": {size: {"spread": spread(values), "runs": values} for size, values in taken["copy"].items()},
        "latency": latencies,
        "elsewhere_cores": spread([run.elsewhere_cores for run in everything], 2),
        "ratios": ratios(throughputs, latencies, when["machine"]["cpus"]),
    }


async def run(plan: BenchPlan, servers: Servers, build: Path) -> dict[str, Any]:
    """A whole run on these servers; the report."""
    async with Stage(servers, build) as stage:
        taken = await bench(stage, plan)
        return make_report(plan, taken, stage.batch, await stage.postgres_facts())


def main() -> int:
    """Start servers, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="some six minutes (the default)")
    length.add_argument("--full", action="store_true", help="more repeats, more commands, more rates")
    plan = FULL if parser.parse_args().full else SHORT
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("starting an embedded Kafka and Postgres (the first time fetches 44 MB) …", file=sys.stderr)
    try:
        with Servers(
            kafka=ClusterOptions(
                profile=THROUGHPUT,
                progress=lambda done, total, name: print(f"  {name} ({done} of {total})", file=sys.stderr),
            ),
            postgres_settings=POSTGRES_SETTINGS,
        ) as servers:
            report = asyncio.run(run(plan, servers, build))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nthe benchmark can't continue, nothing was written: {error!r}", file=sys.stderr)
        return 1
    print(table(merge(build, report, report.pop("ratios"))))
    print(f"all figures: {build / REPORT}, charts: {build}/bench-*.svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
