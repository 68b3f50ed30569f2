"""``python -m tests.bench.telemetry``: what metrics, probes and scrapes cost a worker's throughput.

One worker drains the same number of waiting creates with its HTTP port and without, in turn, beginning with the other
one each time. The ratio is that of the CPU that the worker spends on a command, which is what bounds it and what a busy
machine changes least; that of commands a second is told beside it.
"""

import argparse
import asyncio
import json
import statistics
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.bench.plan import POSTGRES_SETTINGS
from tests.bench.stage import Ground, Stage
from tests.bench.throughput import Run, measure

from waypost_worker.devserver import THROUGHPUT, DevServerError, Servers
from waypost_worker.devserver.ports import Port

WRITTEN: Final = Path("build/bench-telemetry.json")
_SCRAPE_SECONDS: Final = 15.0  # as deploy/kubernetes/components/monitoring asks


class Watched(Stage):
    """A stage whose workers may have an HTTP port."""

    port: int | None = None

    def worker_environment(self, ground: Ground) -> dict[str, str]:
        """With the port, where there is one."""
        more = {} if self.port is None else {"WAYPOST_HTTP_PORT": str(self.port)}
        return {**super().worker_environment(ground), **more}


async def one(stage: Watched, commands: int, port: int | None) -> Run:
    """One measurement, scraped all the time where there is a port."""
    stage.port = port
    if port is None:
        return await measure(stage, "service", commands)
    scraping = asyncio.create_task(_scrape(port))
    try:
        return await measure(stage, "service", commands)
    finally:
        scraping.cancel()


async def _scrape(port: int) -> None:
    while True:
        with suppress(OSError):  # before it listens, and after
            await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/metrics")
        await asyncio.sleep(_SCRAPE_SECONDS)


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return bytes(answer.read())


async def compare(stage: Watched, commands: int, pairs: int, port: int) -> dict[str, object]:
    """The pairs, and the medians of their ratios."""
    await one(stage, commands, None)  # warms the broker up
    cpu, speed = [], []
    for number in range(pairs):
        ports = (None, port) if number % 2 else (port, None)
        runs = {at: await one(stage, commands, at) for at in ports}
        cpu.append(runs[port].cpu_us["loop"] / runs[None].cpu_us["loop"])
        speed.append(runs[port].per_second / runs[None].per_second)
        print(f"pair {number + 1}: CPU {cpu[-1]:.3f}, commands a second {speed[-1]:.3f}", file=sys.stderr)
    return {
        "commands": commands,
        "cpu_ratios": [round(ratio, 4) for ratio in cpu],
        "speed_ratios": [round(ratio, 4) for ratio in speed],
        "cpu_ratio": round(statistics.median(cpu), 4),
        "speed_ratio": round(statistics.median(speed), 4),
    }


async def main(arguments: argparse.Namespace, servers: Servers) -> None:
    """Measure, print, write."""
    port = Port()
    stage = Watched(servers, WRITTEN.parent)
    async with stage:
        told = await compare(stage, arguments.commands, arguments.pairs, port.number)
    port.release()
    WRITTEN.write_text(json.dumps(told, indent=2) + "\n")
    print(
        f"with telemetry: {told['cpu_ratio']} of the CPU a command, {told['speed_ratio']} of the commands a second"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=60_000)
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args()
    WRITTEN.parent.mkdir(exist_ok=True)
    try:
        with Servers(kafka_profile=THROUGHPUT, postgres_settings=POSTGRES_SETTINGS) as running:
            asyncio.run(main(given, running))
    except DevServerError as error:
        raise SystemExit(f"the servers can't be started: {error}") from None
