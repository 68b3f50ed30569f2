"""``python -m tests.tools.bench.graphs``: what a LangGraph graph of five nodes takes with each checkpointer.

One graph at a time and 50 in parallel, with 1, 10 and 200 messages of history, all savers in turn on the same servers.
Adds ``graphs`` and its ratios to ``build/bench.json``. Needs an environment with the peers' packages, which
``make bench-full`` creates.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.tools.bench.children import Child, ChildFailedError
from tests.tools.bench.merging import measured, merge
from tests.tools.bench.plan import POSTGRES_SETTINGS
from tests.tools.bench.report import at_least, at_most, paired_ratio, spread
from tests.tools.bench.stage import Stage
from tests.tools.bench.table import table

from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers

Series = Mapping[str, Sequence[float]]
_SCHEMAS: Final = Path(__file__).parents[3] / "schemas"
# The subject of the goals: LangGraph's default durability, and the shortest history.
_GOAL: Final = ("async", 1)


class Measurements:
    """The child's measurements so far: for each saver, all values in the order in which they were taken."""

    def __init__(self) -> None:
        self.milliseconds: dict[tuple[str, int], Series] = {}
        self.cpu: dict[tuple[str, int], Series] = {}
        self.rates: dict[int, Series] = {}

    def take(self, answer: Mapping[str, Any]) -> None:
        """Add a series."""
        if answer["part"] == "one":
            key = (answer["durability"], answer["history"])
            self.milliseconds[key], self.cpu[key] = answer["ms"], answer["cpu_ms"]
        else:
            self.rates[answer["history"]] = answer["per_second"]

    def to_dict(self) -> dict[str, Any]:
        """For the report, by durability, messages of history and saver."""
        one: dict[str, dict[str, Any]] = {}
        for (durability, history), series in self.milliseconds.items():
            cpu = self.cpu[durability, history]
            one.setdefault(durability, {})[str(history)] = {
                name: {"ms": spread(values), "cpu_ms": spread(cpu[name])} for name, values in series.items()
            }
        at_once = {
            str(history): {name: spread(values) for name, values in series.items()}
            for history, series in self.rates.items()
        }
        return {"one": one, "at_once_per_second": at_once}

    def ratios(self) -> dict[str, Any]:
        """Return the promises to users of LangGraph, each with its target."""
        one, at_once = self.milliseconds[_GOAL], self.rates[_GOAL[1]]
        return {
            "graph_ms_logged_over_saver": at_most(paired_ratio(one["logged"], one["saver"]), 0.5),
            "graph_ms_accepted_over_memory": at_most(paired_ratio(one["accepted"], one["memory"]), 2),
            "graphs_at_once_logged_over_saver": at_least(
                paired_ratio(at_once["logged"], at_once["saver"]), 3
            ),
            "graphs_at_once_logged_over_memory": at_least(
                paired_ratio(at_once["logged"], at_once["memory"]), 0.6
            ),
        }


def say(answer: Mapping[str, Any]) -> None:
    """One line for each series."""
    if answer["part"] == "one":
        what, series, unit = answer["durability"], answer["ms"], "ms"
    else:
        what, series, unit = "50 in parallel", answer["per_second"], "runs/s"
    told = ", ".join(f"{name} {median(values):.1f}" for name, values in series.items())
    print(f"  {what}, {answer['history']} of history: {told} {unit}", file=sys.stderr, flush=True)


async def measure(stage: Stage, python: Path, runs: int, repeats: int) -> Measurements:
    """All series, by a child that has all savers."""
    found = Measurements()
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        service = await stack.enter_async_context(stage.system("service", ground))
        await stage.ready("service", ground, service)
        job = {
            "bootstrap": ground.bootstrap,
            "prefix": ground.topics.prefix,
            "dsn": ground.dsn,
            "runs": runs,
            "repeats": repeats,
        }
        program = [str(python), "-m", "tests.tools.bench.peers.graphs", json.dumps(job)]
        environment = {**os.environ, "PYTHONPATH": str(_SCHEMAS)}
        child = Child("graphs", {}, program=program, environment=environment)
        await stack.enter_async_context(child)
        while (answer := await child.answer())["part"] != "end":
            say(answer)
            found.take(answer)
    return found


async def run(servers: Servers, build: Path, asked: argparse.Namespace) -> Mapping[str, Any]:
    """The measurements, added to the report: the whole report."""
    async with Stage(servers, build) as stage:
        found = await measure(stage, asked.python, asked.runs, asked.repeats)
        when = measured(await stage.postgres_facts())
    part = {**found.to_dict(), "measured": when, "runs": asked.runs, "repeats": asked.repeats}
    return merge(build, {**when, "graphs": part}, found.ratios())


def main(arguments: Sequence[str] | None = None) -> int:
    """Start servers, measure, add to the report, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.graphs", description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="a Python with the peers' packages")
    parser.add_argument("--runs", type=int, default=20, help="of each graph, one at a time (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of 50 graphs (default: 3)")
    asked = parser.parse_args(arguments)
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("LangGraph with each checkpointer, about three minutes …", file=sys.stderr)
    try:
        with Servers(
            kafka=ClusterOptions(profile=THROUGHPUT), postgres_settings=POSTGRES_SETTINGS
        ) as servers:
            report = asyncio.run(run(servers, build, asked))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nThe benchmark stopped, and nothing was written: {error!r}", file=sys.stderr)
        return 1
    print(table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
