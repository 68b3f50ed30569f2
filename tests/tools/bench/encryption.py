"""``python -m tests.tools.bench.encryption``: what encryption costs; writes ``build/bench-encryption.json``.

With and without a codec, in turns in one run: the time of a publish call at 1 KB while Kafka works, and the commands
per second of one worker that finds a full topic. The encrypted deployment rejects plaintext, so its worker checks the
shape of all data.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg
from tests.support.cli import CommandLine
from tests.support.keys import key_codec
from tests.tools.bench.load import NAMES
from tests.tools.bench.machine import machine
from tests.tools.bench.plan import DATA_BYTES
from tests.tools.bench.report import at_least, at_most, paired_ratio, percentile
from tests.tools.bench.states import session_name, states
from tests.tools.bench.usage import process_seconds

from waypost import Codec, Publisher
from waypost_worker.devserver import Servers

MOST_MORE_US: Final = 15.0
LEAST_RATIO: Final = 0.85
_SESSIONS: Final = 200
_BURST: Final = 20
_PARTITIONS: Final = 2
_PATIENCE: Final = 300.0
_LOOK_SECONDS: Final = 0.02


class Drained(NamedTuple):
    """Commands per second of a worker, and microseconds of its processor time per command."""

    per_second: float
    cpu_us: float


class Deployment:
    """A deployment with its own topics and database, with a codec or without."""

    def __init__(self, line: CommandLine, codec: Codec | None) -> None:
        self.line = line
        self._codec = codec

    def publisher(self) -> Publisher:
        """A publisher, to be started."""
        servers, prefix = (
            self.line.settings["WAYPOST_BOOTSTRAP_SERVERS"],
            self.line.settings["WAYPOST_TOPIC_PREFIX"],
        )
        return Publisher(servers, topic_prefix=prefix, codec=self._codec)

    async def fill(self, count: int) -> None:
        """Publish this many creates of 1 KB."""
        made = states(DATA_BYTES)
        async with self.publisher() as publisher:
            await publisher.prepare(*map(session_name, range(_SESSIONS)))
            if self._codec is not None:
                await publisher.configure_defaults(encrypted=True)
            for number in range(count):
                publisher.create(
                    session_name(number % _SESSIONS), NAMES[number % len(NAMES)], made[number % len(made)]
                )
                if number % 1000 == 0:
                    await publisher.drain()
            assert await publisher.flush(_PATIENCE) == 0

    async def drained(self, count: int, python: str = sys.executable) -> "Drained":
        """Measure one worker, run by this interpreter, from its first batch to its last."""
        connection = await asyncpg.connect(self.line.settings["WAYPOST_POSTGRES_DSN"])
        worker = self.line.start("worker", python=python)
        try:
            async with asyncio.timeout(_PATIENCE):
                began, first = await self._applied(connection, 1)
                before = process_seconds(worker.process.pid)
                ended, last = await self._applied(connection, count)
                used = process_seconds(worker.process.pid) - before
        finally:
            worker.end()
            await connection.close()
        applied = max(1, last - first)
        return Drained(applied / (ended - began), 1e6 * used / applied)

    async def _applied(self, connection: Any, least: int) -> tuple[float, int]:
        while True:
            found = await connection.fetchval(
                "select coalesce(sum(next_offset), 0)::bigint from waypost.partitions"
            )
            if found >= least:
                return time.monotonic(), found
            await asyncio.sleep(_LOOK_SECONDS)  # as little of Postgres as can be


class Calls:
    """A publisher whose calls are timed."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.nanoseconds: list[int] = []
        self._made = states(DATA_BYTES)
        self._number = 0

    def burst(self, *, timed: bool) -> None:
        """Publish a few checkpoints in a row."""
        for _ in range(_BURST):
            self._number += 1
            session, name = session_name(self._number % _SESSIONS), NAMES[self._number % len(NAMES)]
            data = self._made[self._number % len(self._made)]
            began = time.perf_counter_ns()
            self.publisher.create(session, name, data)
            if timed:
                self.nanoseconds.append(time.perf_counter_ns() - began)

    def figures(self) -> dict[str, float]:
        """Microseconds of a call."""
        ordered = sorted(self.nanoseconds)
        return {
            "p50_us": percentile(ordered, 0.5) / 1000,
            "p99_us": percentile(ordered, 0.99) / 1000,
            "mean_us": sum(ordered) / len(ordered) / 1000,
        }


async def timed_calls(plain: Deployment, encrypted: Deployment, count: int) -> dict[str, Any]:
    """Time calls in bursts, in turns, with the event loop running between them."""
    async with plain.publisher() as first, encrypted.publisher() as second:
        both = [Calls(first), Calls(second)]
        await second.prepare(*map(session_name, range(_SESSIONS)))
        for number in range(count // _BURST + 50):
            for each in both if number % 2 else reversed(both):
                each.burst(timed=number >= 50)
                await each.publisher.drain()
                await asyncio.sleep(0.001)
            if number % 50 == 0:
                gc.collect()
        for each in both:
            await each.publisher.flush(_PATIENCE)
    without, with_codec = (each.figures() for each in both)
    more = {
        "value": round(with_codec["p50_us"] - without["p50_us"], 2),
        "mean": round(with_codec["mean_us"] - without["mean_us"], 2),
    }
    return {"plain": without, "encrypted": with_codec, "more_us": at_most(more, MOST_MORE_US)}


async def throughput(pairs: Sequence[tuple[Deployment, Deployment]], count: int) -> dict[str, Any]:
    """Fill both deployments of each pair, then have a worker drain each, one at a time."""
    rates: dict[str, list[float]] = {"plain": [], "encrypted": []}
    cpu: dict[str, list[float]] = {"plain": [], "encrypted": []}
    for turn, (plain, encrypted) in enumerate(pairs):
        for each in (plain, encrypted):
            await each.fill(count)
        named = [("plain", plain), ("encrypted", encrypted)]
        for name, each in named if turn % 2 else reversed(named):
            done = await each.drained(count)
            rates[name].append(done.per_second)
            cpu[name].append(done.cpu_us)
    ratio = at_least(paired_ratio(rates["encrypted"], rates["plain"]), LEAST_RATIO)
    # On a machine that others use as well, this says more than a clock.
    of_cpu = paired_ratio(cpu["plain"], cpu["encrypted"]) if all(cpu["encrypted"]) else None
    return {"commands_per_second": rates, "ratio": ratio, "cpu_us_per_command": cpu, "cpu_ratio": of_cpu}


def made(servers: Servers, directory: Path, name: str, codec: Codec | None) -> Deployment:
    """A deployment on these servers."""
    unique = f"{name}_{uuid.uuid4().hex[:8]}"
    line = CommandLine(
        directory,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": servers.postgres.create_database(unique),
            "WAYPOST_TOPIC_PREFIX": unique,
            "WAYPOST_GROUP_ID": unique,
        },
    )
    for words in (("migrate",), ("topics", "create", "--partitions", f"{_PARTITIONS}", "--skip-zombie-test")):
        done = line.run(*words)
        assert done.code == 0, done
    return Deployment(line, codec)


def measure(servers: Servers, directory: Path, *, calls: int, commands: int, repeats: int) -> dict[str, Any]:
    """Measure both, on servers that run."""
    codec = asyncio.run(key_codec(directory))

    def pair() -> tuple[Deployment, Deployment]:
        return made(servers, directory, "plain", None), made(servers, directory, "encrypted", codec)

    called = asyncio.run(timed_calls(*pair(), calls))
    pairs = [pair() for _ in range(repeats)]
    drained = asyncio.run(throughput(pairs, commands))
    return {
        "calls": called,
        "worker": drained,
        "counts": {"calls": calls, "commands": commands, "repeats": repeats},
    }


def lines(measured: dict[str, Any]) -> list[str]:
    """Return the measurements as text."""
    calls, worker = measured["calls"], measured["worker"]
    rates, cpu = worker["commands_per_second"], worker["cpu_us_per_command"]
    return [
        f"publish call, 1 KB: {calls['plain']['p50_us']:.1f} us plain, {calls['encrypted']['p50_us']:.1f} us encrypted "
        f"(p99 {calls['plain']['p99_us']:.1f} and {calls['encrypted']['p99_us']:.1f}); "
        f"{calls['more_us']['value']:.1f} us more, at most {MOST_MORE_US:g} promised",
        f"one worker: {max(rates['plain']):,.0f} commands/s plain, {max(rates['encrypted']):,.0f} encrypted; ratio "
        f"{worker['ratio']['value']:.3f}, at least {LEAST_RATIO:g} promised; {min(cpu['plain']):.0f} and "
        f"{min(cpu['encrypted']):.0f} us of its processor time per command",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark with its own servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="timed calls of each kind")
    parser.add_argument("--commands", type=int, default=40_000, help="commands that a worker drains")
    parser.add_argument("--repeats", type=int, default=3, help="workers of each kind")
    parser.add_argument("--out", type=Path, default=Path("build/bench-encryption.json"))
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        servers = stack.enter_context(Servers(directory / "servers"))
        measured = measure(
            servers, directory, calls=given.calls, commands=given.commands, repeats=given.repeats
        )
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), **measured}, indent=2) + "\n")
    print("\n".join(lines(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
