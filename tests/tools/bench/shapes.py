"""``python -m tests.tools.bench.shapes``: other shapes of load, the bare loop and the service in pairs on the
same servers.

Sessions at their retention cap, data of 10 and 100 KB, a gigabyte of history, replay, a million sessions and the
worker's memory, and how long results pause when one of two workers ends. Adds ``shapes`` and its ratios to
``build/bench.json``.
"""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tests.tools.bench import replaying
from tests.tools.bench.children import ChildFailedError
from tests.tools.bench.merging import measured, merge
from tests.tools.bench.plan import FROM_PART, POSTGRES_SETTINGS, SESSIONS, TO_PART
from tests.tools.bench.report import at_least, at_most, paired_ratio, plain_figure, spread
from tests.tools.bench.stage import Ground, Stage, System
from tests.tools.bench.table import table

from waypost_worker.config.settings import Settings
from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers

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
    target: float = 0.0


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
# The contents of a database before the measured creates: a little, and 1 GB.
_NO_LIMIT: Final = {"max_checkpoints": 10_000, "compress_after": 10_000}
HISTORIES: Final = {
    "short": Shape("20 MB of history", commands=20_000, defaults=_NO_LIMIT),
    "1_gb": Shape("1 GB of history", commands=100_000, data_bytes=10_240, defaults=_NO_LIMIT),
}
# Each session is met ten times before the measured part: a new worker loads what a session holds when it meets it
# first.
_AFTER_HISTORY: Final = Shape("creates", commands=80_000, prelude=20_000)
MILLION: Final = Shape("a million sessions", commands=1_000_000, sessions=1_000_000)


async def rate(stage: Stage, which: System, shape: Shape) -> tuple[float, float]:
    """Return the commands per second from topic to topic, and the system's peak resident memory in MB."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        await _fill(ground, shape, with_defaults=which == "service")
        await stage.checkpoint()
        child = await stack.enter_async_context(stage.system(which, ground))
        times = await ground.committed(shape.commands, patience=900)
        memory = peak_mb(child.pid)
    return _per_second(times, shape.prelude), memory


async def after(stage: Stage, history: Shape) -> tuple[float, float]:
    """Return the creates per second of a new worker whose database has that history: after it has loaded the sessions,
    and including the loading.
    """
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        await _fill(ground, history)
        # A separate worker, because partitions don't reach the end of the history at the same moment.
        async with stage.system("service", ground):
            await ground.committed(history.commands, patience=900)
        await _fill(ground, _AFTER_HISTORY)
        await stage.checkpoint()
        await stack.enter_async_context(stage.system("service", ground))
        times = await ground.committed(history.commands + _AFTER_HISTORY.commands, patience=900)
    return (
        _per_second(times, history.commands + _AFTER_HISTORY.prelude),
        (_AFTER_HISTORY.commands - 1) * 1000 / (times[-1] - times[history.commands]),
    )


async def _fill(ground: Ground, shape: Shape, with_defaults: bool = True) -> None:
    job: dict[str, Any] = {
        "commands": shape.commands,
        "sessions": shape.sessions,
        "data_bytes": shape.data_bytes,
    }
    if with_defaults and shape.defaults is not None:
        job["defaults"] = shape.defaults
    async with ground.load("fill", **job) as load:
        await load.answer()
        load.tell("go")
        await load.answer()


def _per_second(times: list[int], prelude: int) -> float:
    """Of the results behind the first ``prelude`` ones, over the part that is measured."""
    commands = len(times) - prelude
    first, last = prelude + int(commands * FROM_PART), prelude + int(commands * TO_PART) - 1
    return (last - first) * 1000 / (times[last] - times[first])


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
        # The second worker's partitions are fenced again when they come to it.
        await stage.until(ground, second, lambda held: held >= 4)
        phases = [("steady", _TAKEOVER_RATE, _TAKEOVER_SECONDS)]
        load = await stack.enter_async_context(ground.load("pace", phases=phases))
        await load.answer()
        load.tell("go")
        before = await ground.results()
        await stage.until(ground, second, lambda held: held > before + 2 * _TAKEOVER_RATE)
        os.kill(first.pid, number)
        while (await load.answer())["state"] != "done":
            pass
        times = await ground.gaps(int(_TAKEOVER_RATE * _TAKEOVER_SECONDS))
    return max(times)


class Shapes:
    """The measurements of one run, kept as they come."""

    def __init__(self, stage: Stage, repeats: int) -> None:
        self.found: dict[str, Any] = {}
        self.ratios: dict[str, Any] = {}
        self._stage = stage
        self._repeats = repeats

    async def beside_bare(self, name: str, shape: Shape) -> None:
        """The service and the bare loop, in turn."""
        rates: dict[str, list[float]] = {which: [] for which in SYSTEMS}
        for repeat in range(self._repeats):
            for which in SYSTEMS if repeat % 2 == 0 else SYSTEMS[::-1]:
                per_second, _ = await rate(self._stage, which, shape)
                rates[which].append(per_second)
                megabytes = per_second * shape.data_bytes / 1e6
                say(f"{shape.title}, {which}", f"{per_second:,.0f}/s {megabytes:,.1f} MB/s")
        self.found[name] = {which: spread(values) for which, values in rates.items()}
        figure = paired_ratio(rates["service"], rates["bare"])
        self.ratios[f"{name}_service_over_bare"] = at_least(figure, shape.target)

    async def history(self) -> None:
        """Creates with much and with little in the database."""
        rates: dict[str, list[float]] = {name: [] for name in HISTORIES}
        with_loading: dict[str, list[float]] = {name: [] for name in HISTORIES}
        for repeat in range(self._repeats):
            for name in HISTORIES if repeat % 2 == 0 else reversed(HISTORIES):
                for told, rate in zip(
                    (rates, with_loading), await after(self._stage, HISTORIES[name]), strict=True
                ):
                    told[name].append(rate)
                say(f"creates after {HISTORIES[name].title}", f"{rates[name][-1]:,.0f}/s")
                say("  with the loading of its sessions", f"{with_loading[name][-1]:,.0f}/s")
        self.found["history"] = {name: spread(values) for name, values in rates.items()}
        figure = paired_ratio(rates["1_gb"], rates["short"])
        self.ratios["creates_once_loaded_after_1_gb_over_short_history"] = at_least(figure, 0.9)
        self.ratios["creates_with_loading_after_1_gb_over_short_history"] = paired_ratio(
            with_loading["1_gb"], with_loading["short"]
        )

    async def replay(self) -> None:
        """Replay into an empty schema, and the live worker before it."""
        pairs = []
        for _ in range(self._repeats):
            pairs.append(await replaying.pair(self._stage))
            say("a worker, live", f"{pairs[-1].live:,.0f}/s")
            say(f"replay, {pairs[-1].cpu_us:.0f} us of CPU per command", f"{pairs[-1].replay:,.0f}/s")
        live, replay = [one.live for one in pairs], [one.replay for one in pairs]
        self.found["replay"] = {
            "live": spread(live),
            "replay": spread(replay),
            "replay_cpu_us_per_command": spread([one.cpu_us for one in pairs]),
        }
        self.ratios["replay_over_live"] = at_least(paired_ratio(replay, live), 1.5)

    async def takeover(self) -> None:
        """Measure how long results pause when one of two workers ends."""
        timeout = Settings.model_fields["session_timeout"].default
        for name, number, most in (
            ("sigterm", signal.SIGTERM, 1.0),
            ("sigkill", signal.SIGKILL, timeout + 1.0),
        ):
            pauses = []
            for _ in range(self._repeats):
                pauses.append(await pause(self._stage, number))
                say(f"one of two workers gets {name.upper()}", f"{pauses[-1]:.2f} s")
            self.found[f"takeover_{name}_seconds"] = spread(pauses, 2)
            self.ratios[f"takeover_{name}_seconds"] = at_most(plain_figure(pauses, "s"), most)

    async def million(self) -> None:
        """A session for each command: the worker's memory."""
        rates, peaks = [], []
        for _ in range(self._repeats):
            per_second, memory = await rate(self._stage, "service", MILLION)
            say(MILLION.title, f"{per_second:,.0f}/s {memory:,.0f} MB")
            rates.append(per_second)
            peaks.append(memory)
        self.found["million_sessions"] = {"per_second": spread(rates), "worker_peak_mb": spread(peaks)}
        self.ratios["million_sessions_worker_mb"] = at_most(plain_figure(peaks, "MB", 0), 400)


def say(what: str, value: str) -> None:
    """One line for each measurement."""
    print(f"  {what:<52}{value:>20}", file=sys.stderr, flush=True)


OTHERS: Final = {
    "replay": Shapes.replay,
    "history": Shapes.history,
    "takeover": Shapes.takeover,
    "million": Shapes.million,
}


async def run(servers: Servers, build: Path, repeats: int, only: list[str]) -> dict[str, Any]:
    """The measurements, added to the report: the whole report."""
    async with Stage(servers, build) as stage:
        shapes = Shapes(stage, repeats)
        for name in only or chain(SHAPES, OTHERS):
            if name in SHAPES:
                await shapes.beside_bare(name, SHAPES[name])
            else:
                await OTHERS[name](shapes)
        when = measured(await stage.postgres_facts())
    found = {
        **shapes.found,
        "configuration": {"repeats": repeats, "bare_loop_batch": stage.batch},
        "measured": when,
    }
    return merge(build, {**when, "shapes": found}, shapes.ratios)


def main() -> int:
    """Start servers, measure, add to the report, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.bench.shapes", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=[*SHAPES, *OTHERS])
    asked = parser.parse_args()
    build = Path("build")
    build.mkdir(exist_ok=True)
    print("other shapes of load, some thirty minutes …", file=sys.stderr)
    try:
        with Servers(
            kafka=ClusterOptions(profile=THROUGHPUT), postgres_settings=POSTGRES_SETTINGS
        ) as servers:
            report = asyncio.run(run(servers, build, asked.repeats, asked.only))
    except (DevServerError, ChildFailedError, RuntimeError, TimeoutError) as error:
        print(f"\nthe benchmark can't continue, nothing was written: {error!r}", file=sys.stderr)
        return 1
    print(table(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
