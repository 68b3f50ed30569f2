"""``python -m tests.bench.shapes``: other shapes of load, the bare loop and the service in pairs on the same servers.

Sessions at their retention cap, data of 10 and 100 KB, a million sessions and the worker's memory, and how long
results pause when one of two workers ends. Adds ``shapes`` and its ratios to ``build/bench.json``.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.bench.children import ChildFailedError
from tests.bench.plan import FROM_PART, POSTGRES_SETTINGS, SESSIONS, TO_PART
from tests.bench.report import paired_ratio, spread
from tests.bench.stage import Stage, System

from waypost_worker.devserver import THROUGHPUT, DevServerError, Servers
from waypost_worker.settings import Settings

SYSTEMS: Final[tuple[System, ...]] = ("bare", "service")
_CAP: Final = 100
_TAKEOVER_RATE: Final = 500
_TAKEOVER_SECONDS: Final = 25.0


@dataclass(frozen=True, slots=True)
class Shape:
    """``commands`` over ``sessions``, of which the first ``prelude`` are not measured."""

    title: str
    commands: int
    sessions: int = SESSIONS
    data_bytes: int = 1_024
    prelude: int = 0
    defaults: dict[str, int] | None = None
    target: float | None = None


SHAPES: Final = {
    "at_cap": Shape(
        "every session at its cap of 100",
        commands=SESSIONS * _CAP + 60_000,
        prelude=SESSIONS * _CAP,
        defaults={"max_checkpoints": _CAP, "compress_after": 10_000},
        target=0.4,
    ),
    "data_10_kb": Shape("data of 10 KB", commands=15_000, data_bytes=10_240, target=0.8),
    "data_100_kb": Shape("data of 100 KB", commands=2_400, data_bytes=102_400, target=0.8),
}
MILLION: Final = Shape("a million sessions", commands=1_000_000, sessions=1_000_000)


async def rate(stage: Stage, which: System, shape: Shape) -> tuple[float, float]:
    """Commands a second from topic to topic, and the system's most resident memory in MB."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        job = {"commands": shape.commands, "sessions": shape.sessions, "data_bytes": shape.data_bytes}
        if which == "service" and shape.defaults is not None:
            job["defaults"] = shape.defaults  # type: ignore[assignment]
        async with ground.load("fill", **job) as load:
            await load.answer()
            load.tell("go")
            await load.answer()
        await stage.checkpoint()
        child = await stack.enter_async_context(stage.system(which, ground))
        times = await ground.committed(shape.commands, patience=900)
        memory = peak_mb(child.pid)
    measured = shape.commands - shape.prelude
    first = shape.prelude + int(measured * FROM_PART)
    last = shape.prelude + int(measured * TO_PART) - 1
    return (last - first) * 1000 / (times[last] - times[first]), memory


def peak_mb(pid: int) -> float:
    """The most memory that a process had resident so far (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


async def pause(stage: Stage, number: int) -> float:
    """Seconds without results in any one partition after one of two workers got this signal, under steady load."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        first = await stack.enter_async_context(stage.worker(ground))
        await stage.until(ground, first, lambda held: held >= 3)
        second = await stack.enter_async_context(stage.worker(ground))
        # The second worker's partitions are fenced anew when they come to it.
        await stage.until(ground, second, lambda held: held >= 4)
        phases = [("steady", _TAKEOVER_RATE, _TAKEOVER_SECONDS)]
        load = await stack.enter_async_context(ground.load("pace", phases=phases))
        await load.answer()
        load.tell("go")
        before = await ground.results()
        await stage.until(ground, second, lambda held: held > before + 2 * _TAKEOVER_RATE)
        os.kill(first.pid, number)
        await load.answer()
        times = await ground.gaps(int(_TAKEOVER_RATE * _TAKEOVER_SECONDS))
    return max(times)


def say(what: str, value: str) -> None:
    """One line for each measurement."""
    print(f"  {what:<52}{value:>20}", file=sys.stderr, flush=True)


async def run(
    servers: Servers, build: Path, repeats: int, only: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The measurements and the ratios."""
    found: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    async with Stage(servers, build) as stage:
        for name, shape in SHAPES.items():
            if only and name not in only:
                continue
            rates: dict[str, list[float]] = {which: [] for which in SYSTEMS}
            for repeat in range(repeats):
                for which in SYSTEMS if repeat % 2 == 0 else SYSTEMS[::-1]:
                    per_second, _ = await rate(stage, which, shape)
                    rates[which].append(per_second)
                    megabytes = per_second * shape.data_bytes / 1e6
                    say(f"{shape.title}, {which}", f"{per_second:,.0f}/s {megabytes:,.1f} MB/s")
            found[name] = {which: spread(values) for which, values in rates.items()}
            figure = paired_ratio(rates["service"], rates["bare"])
            ratios[f"{name}_service_over_bare"] = {
                **figure,
                "target": f">= {shape.target}",
                "met": figure["value"] >= (shape.target or 0),
            }
        if not only or "takeover" in only:
            await _takeovers(stage, repeats, found, ratios)
        if not only or "million" in only:
            per_second, memory = await rate(stage, "service", MILLION)
            say(MILLION.title, f"{per_second:,.0f}/s {memory:,.0f} MB")
            found["million_sessions"] = {"per_second": round(per_second), "worker_peak_mb": round(memory)}
            ratios["million_sessions_worker_mb"] = {
                "value": round(memory),
                "target": "<= 400",
                "met": memory <= 400,
            }
    return found, ratios


async def _takeovers(stage: Stage, repeats: int, found: dict[str, Any], ratios: dict[str, Any]) -> None:
    timeout = Settings.model_fields["session_timeout"].default
    for name, number, most in (
        ("sigterm", signal.SIGTERM, 1.0),
        ("sigkill", signal.SIGKILL, timeout + 1.0),
    ):
        pauses = []
        for _ in range(repeats):
            pauses.append(await pause(stage, number))
            say(f"one of two workers gets {name.upper()}", f"{pauses[-1]:.2f} s")
        found[f"takeover_{name}_seconds"] = spread(pauses, 2)
        ratios[f"takeover_{name}_seconds"] = {
            "value": round(median(pauses), 2),
            "target": f"<= {most:g}",
            "met": median(pauses) <= most,
        }


def main() -> int:
    """Start servers, measure, add to the report, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.shapes", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=[*SHAPES, "takeover", "million"])
    asked = parser.parse_args()
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("other shapes of load, some fifteen minutes …", file=sys.stderr)
    try:
        with Servers(kafka_profile=THROUGHPUT, postgres_settings=POSTGRES_SETTINGS) as servers:
            found, ratios = asyncio.run(run(servers, build, asked.repeats, asked.only))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nthe benchmark can't go on, nothing was written: {error!r}", file=sys.stderr)
        return 1
    file = build / "bench.json"
    report = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"ratios": {}}
    report["shapes"] = report.get("shapes", {}) | found
    report["ratios"].update(ratios)
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, figure in ratios.items():
        mark = "met" if figure["met"] else "NOT"
        print(f" {name.replace('_', ' '):<46}{figure['value']:>8}{figure['target']:>12}  {mark}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
