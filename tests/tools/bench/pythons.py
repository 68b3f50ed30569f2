"""``python -m tests.tools.bench.pythons PYTHON ...``: the same worker under several versions of Python.

Each interpreter needs the packages of ``requirements.lock``; the one that runs this takes part as the first. In turns
in one run, a worker of each drains a full topic, then applies what comes at a steady rate. Writes
``build/bench-pythons.json``.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from tests.tools.bench.encryption import Deployment, made
from tests.tools.bench.load import NAMES
from tests.tools.bench.machine import machine
from tests.tools.bench.plan import DATA_BYTES
from tests.tools.bench.states import session_name, states
from tests.tools.bench.usage import process_seconds

from waypost_worker.devserver import Servers

_SESSIONS: Final = 200
_RATE: Final = 500  # commands per second
_SECONDS: Final = 10
_WARM_SECONDS: Final = 3


async def steady(deployment: Deployment, python: str) -> float:
    """Microseconds of a worker's processor time per command, at a rate that leaves both cores some time."""
    data = states(DATA_BYTES)
    worker = deployment.line.start("worker", python=python)
    try:
        async with deployment.publisher() as publisher:
            await publisher.create_and_wait(session_name(0), NAMES[0], data[0], timeout=60)
            began, before = time.monotonic(), 0.0
            for number in range(_RATE * (_WARM_SECONDS + _SECONDS)):
                if number == _RATE * _WARM_SECONDS:
                    before = process_seconds(worker.process.pid)
                publisher.create(
                    session_name(number % _SESSIONS), NAMES[number % len(NAMES)], data[number % len(data)]
                )
                await asyncio.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            used = process_seconds(worker.process.pid) - before
    finally:
        worker.end()
    return 1e6 * used / (_RATE * _SECONDS)


async def measure(
    servers: Servers, directory: Path, pythons: dict[str, str], commands: int, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Figures by version."""
    figures: dict[str, dict[str, list[float]]] = {version: defaultdict(list) for version in pythons}
    for turn in range(repeats):
        for version, python in list(pythons.items())[:: -1 if turn % 2 else 1]:
            deployment = await asyncio.to_thread(made, servers, directory, "pythons", None)
            await deployment.fill(commands)
            drained = await deployment.drained(commands, python)
            figures[version]["backlog_per_second"].append(drained.per_second)
            figures[version]["backlog_cpu_us"].append(drained.cpu_us)
            figures[version]["steady_cpu_us"].append(await steady(deployment, python))
    return figures


def version_of(python: str) -> str:
    """The version that an interpreter says it is."""
    line = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", line], check=True, capture_output=True, text=True).stdout.strip()


def lines(figures: dict[str, dict[str, list[float]]]) -> list[str]:
    """Medians as text."""
    return [
        f"{version:8} {median(of['backlog_per_second']):8,.0f} commands/s from a backlog, "
        f"{median(of['backlog_cpu_us']):5.1f} us of CPU each; {median(of['steady_cpu_us']):6.0f} us at {_RATE}/s"
        for version, of in figures.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark with its own servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="an interpreter, as a path")
    parser.add_argument("--commands", type=int, default=40_000, help="commands of a backlog")
    parser.add_argument("--repeats", type=int, default=3, help="workers of each")
    parser.add_argument("--out", type=Path, default=Path("build/bench-pythons.json"))
    given = parser.parse_args(arguments)
    pythons = {version_of(python): python for python in (sys.executable, *given.pythons)}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        servers = stack.enter_context(Servers(directory / "servers"))
        # The broker's first minute is slow, and the first interpreter would pay for it.
        asyncio.run(measure(servers, directory, {"warm-up": sys.executable}, given.commands, 1))
        figures = asyncio.run(measure(servers, directory, pythons, given.commands, given.repeats))
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")
    print("\n".join(lines(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
