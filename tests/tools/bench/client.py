"""``python -m tests.tools.bench.client``: what publishing costs an agent; writes ``build/bench-client.json``.

The time of a call at 1 KB with Kafka up, killed and stopped (SIGSTOP), in memory and with a spool; and the rate that a
publisher sustains, compared with a bare ``send`` loop, in turns in one run.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.tools.bench.children import Child, ChildFailedError
from tests.tools.bench.machine import machine, versions
from tests.tools.bench.plan import DATA_BYTES, PARTITIONS, SESSIONS
from tests.tools.bench.report import at_least, at_most, paired_ratio, percentile, spread

from waypost import Topics
from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, EmbeddedKafka
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """Sizes of a run. ``calls`` are timed in memory, a part of them with a spool; twice as many fit the buffer."""

    calls: int
    sustained: int
    repeats: int


FULL: Final = ClientPlan(15_000, 40_000, 3)
SHORT: Final = ClientPlan(3_000, 8_000, 1)
P50_US: Final = 10.0
P99_US: Final = 50.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to publish. ``part`` of the calls are timed; ``promised``: the 10 and 50 us are about it."""

    options: dict[str, Any]
    threads: int = 0  # that share a SyncPublisher; 0 for a Publisher
    part: float = 1.0
    promised: bool = False


WAYS: Final[dict[str, Way]] = {
    "memory": Way({}, promised=True),
    "spool": Way({"spool": True}, promised=True),
    "memory, SyncPublisher": Way({}, threads=1),
    "spool, SyncPublisher": Way({"spool": True}, threads=1),
    "memory, SyncPublisher, 4 threads": Way({}, threads=4),
    "spool, SyncPublisher, 4 threads": Way({"spool": True}, threads=4),
    "spool, synced": Way({"spool": True, "spool_fsync": True}),
    "spool, synced, SyncPublisher": Way({"spool": True, "spool_fsync": True}, threads=1, part=1 / 30),
}


class Calls(NamedTuple):
    """Nanoseconds of each call, rising, and the processor time of one in microseconds."""

    ordered: list[int]
    cpu_us: float


class Bench:
    """One Kafka, and a topic for each measurement."""

    def __init__(self, kafka: EmbeddedKafka, directory: Path, plan: ClientPlan) -> None:
        self.plan = plan
        self._kafka = kafka
        self._directory = directory

    async def _job(self, kind: str, calls: int, options: dict[str, Any]) -> dict[str, Any]:
        topics = Topics(f"client-{uuid.uuid4().hex[:8]}")
        await create_topics(Connection(self._kafka.bootstrap_servers), topics, PARTITIONS)
        if options.get("spool"):
            options = {**options, "spool": str(self._directory / topics.prefix)}
        return {
            "kind": kind,
            "bootstrap": self._kafka.bootstrap_servers,
            "prefix": topics.prefix,
            "calls": calls,
            "options": options,
        }

    async def calls_up(self, way: str) -> Calls:
        """Measure calls while Kafka works."""
        async with await self._child(way) as child:
            await child.answer()
            return await _go(child)

    async def calls_stopped_and_down(self, ways: Sequence[str]) -> tuple[list[Calls], list[Calls]]:
        """The same for several publishers that are connected when Kafka is stopped, and when it is killed then."""
        async with AsyncExitStack() as stack:
            children = [await stack.enter_async_context(await self._child(way)) for way in ways]
            for child in children:
                await child.answer()
            self._kafka.suspend()
            stopped = [await _go(child) for child in children]
            self._kafka.kill()
            return stopped, [await _go(child) for child in children]

    async def _child(self, way: str) -> Child:
        chosen = WAYS[way]
        job = await self._job("calls", int(self.plan.calls * chosen.part), chosen.options)
        return Child("tests.tools.bench.client_child", {**job, "threads": chosen.threads})

    async def sustained(self, kind: str, options: dict[str, Any]) -> float:
        """Return the commands per second until Kafka has acknowledged all."""
        job = await self._job(kind, self.plan.sustained, options)
        async with Child("tests.tools.bench.client_child", job) as child:
            return self.plan.sustained / float((await child.answer())["seconds"])


def call_figures(runs: Sequence[Calls], promised: bool) -> dict[str, Any]:
    """p50, p99 and p99.9 of some runs in microseconds, the first two with what is promised."""
    figures: dict[str, Any] = {}
    for name, part, limit in (("p50", 0.5, P50_US), ("p99", 0.99, P99_US), ("p99.9", 0.999, None)):
        values = [percentile(run.ordered, part) / 1000 for run in runs]
        figure = {"value": spread(values)["median"], "unit": "us", "spread": spread(values)}
        figures[name] = at_most(figure, limit) if promised and limit is not None else figure
    # The figures that a busy machine does not distort.
    figures["cpu"] = {"value": spread([run.cpu_us for run in runs])["median"], "unit": "us"}
    return figures


async def measure(bench: Bench) -> dict[str, Any]:
    """All figures of a run."""
    found: dict[str, Any] = {"calls_us": {}, "sustained": {}}
    per_second: dict[str, list[float]] = {"bare": [], "publisher": [], "publisher, spool": []}
    for repeat in range(bench.plan.repeats):
        # In reverse order each time, so that neither always starts after the other's unflushed writes.
        order = list(per_second)[:: 1 if repeat % 2 == 0 else -1]
        for name in order:
            options = {"spool": True} if name == "publisher, spool" else {}
            rate = await bench.sustained("bare" if name == "bare" else "publish", options)
            per_second[name].append(rate)
            print(f"  sustained, {name}: {rate:,.0f}/s", file=sys.stderr)
    for name, rates in per_second.items():
        found["sustained"][name] = {"per_second": spread(rates, 0), "runs": [round(rate) for rate in rates]}
    found["sustained_publisher_over_bare"] = at_least(
        paired_ratio(per_second["publisher"], per_second["bare"]), 0.9
    )
    found["sustained_spool_over_bare"] = paired_ratio(per_second["publisher, spool"], per_second["bare"])
    repeated = [name for name, way in WAYS.items() for _ in range(bench.plan.repeats if way.promised else 1)]
    runs = {"up": [await bench.calls_up(name) for name in repeated]}
    runs["stopped"], runs["down"] = await bench.calls_stopped_and_down(repeated)
    for name, way in WAYS.items():
        for state, of_state in runs.items():
            mine = [run for one, run in zip(repeated, of_state, strict=True) if one == name]
            found["calls_us"].setdefault(name, {})[state] = call_figures(mine, way.promised)
    return found


async def _go(child: Child) -> Calls:
    child.tell("go")
    told = await child.answer()
    return Calls(sorted(told["times"]), told["cpu_us"])


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'time of a call at 1 KB, us':<34}{'Kafka':<10}{'p50':>8}{'p99':>8}{'p99.9':>9}{'CPU':>7}"]
    for way, states in report["calls_us"].items():
        for state, figures in states.items():
            marks = "".join(
                "" if figure.get("met", True) else f"  {name} NOT" for name, figure in figures.items()
            )
            cells = "".join(
                f"{figures[name]['value']:>{width}.1f}"
                for name, width in (("p50", 8), ("p99", 8), ("p99.9", 9), ("cpu", 7))
            )
            lines.append(f" {way:<33}{state:<10}{cells}{marks}")
    for name, figures in report["sustained"].items():
        lines.append(f" {name + ', sustained':<43}{figures['per_second']['median']:>8,.0f}/s")
    for name in ("sustained_publisher_over_bare", "sustained_spool_over_bare"):
        figure = report[name]
        mark = {True: "  met", False: "  NOT", None: ""}[figure.get("met")]
        lines.append(f" {name.replace('_', ' '):<43}{figure['value']:>8}{figure.get('target', ''):>8}{mark}")
    load = report["machine"]["load_average_at_the_end"][0]
    lines.append(
        f"Targets: p50 <= {P50_US:.0f} and p99 <= {P99_US:.0f} on an event loop. Load average at the end {load}."
    )
    return "\n".join(lines)


def main() -> int:
    """Start Kafka, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.client", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a look, on a busy machine; each figure once")
    plan = SHORT if parser.parse_args().short else FULL
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("starting an embedded Kafka (the first time fetches 44 MB); some minute …", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        try:
            with EmbeddedKafka(Path(name) / "kafka", ClusterOptions(profile=THROUGHPUT)) as kafka:
                measured = asyncio.run(measure(Bench(kafka, Path(name), plan)))
        except (DevServerError, ChildFailedError, AssertionError, TimeoutError) as error:
            print(f"the benchmark can't continue, nothing was written: {error!r}", file=sys.stderr)
            return 1
    report = {
        "machine": machine(),
        "versions": versions("none"),
        "configuration": {
            "data_bytes": DATA_BYTES,
            "sessions": SESSIONS,
            "partitions": PARTITIONS,
            "plan": asdict(plan),
            "targets": {"p50_us": P50_US, "p99_us": P99_US, "sustained_over_bare": 0.9},
        },
        **measured,
    }
    (build / "bench-client.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(report))
    print(f"all figures: {build / 'bench-client.json'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
