"""``python -m tests.tools.bench.console``: how soon the console answers; writes ``build/bench-console.json``.

A session of 10,000 checkpoints, which is the most that one may keep. Measured are the time from the start of a process
to the first page that it serves, and the server's time for each page of the session, one request after the other. Have
the modules compiled (no PYTHONDONTWRITEBYTECODE), as they are where Waypost is installed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
from tests.support.cli import CommandLine
from tests.support.console import Console, running_console
from tests.tools.bench.machine import machine
from tests.tools.bench.report import percentile

from waypost import Publisher
from waypost_worker.devserver import Servers

FULL: Final = 10_000
SESSION: Final = "bench"
_NAMES: Final = ("plan_made", "tool_called", "answer_drafted", "answer_checked")
_COLD_SECONDS: Final = 1.0
_PATIENCE: Final = 300.0


def pages(count: int) -> dict[str, str]:
    """The addresses that are timed, by name."""
    session = f"/sessions/{SESSION}"
    return {
        "sessions": "/",
        "session": session,
        "session, at a cursor": f"{session}?before={count // 2}",
        "checkpoint": f"{session}/{count // 2}",
        "diff": f"{session}/diff?a={count // 2}&b={count}",
        "preview of a rollback": f"{session}/rollback?checkpoint=2&discard_later=1",
        "preview of a policy": f"{session}/policy?max_checkpoints=100",
        "API: session": f"/api/v1{session}",
    }


async def fill(line: CommandLine, count: int) -> None:
    """Make the session: its policy first, so that it keeps all."""
    async with Publisher(
        line.settings["WAYPOST_BOOTSTRAP_SERVERS"], topic_prefix=line.settings["WAYPOST_TOPIC_PREFIX"]
    ) as publisher:
        publisher.configure(SESSION, max_checkpoints=FULL, compress_after=FULL)
        for number in range(1, count):
            data = {"step": number, "plan": ["look", "think", "answer"], "draft": f"line {number}\n" * 20}
            publisher.create(SESSION, _NAMES[number % len(_NAMES)], data)
            if number % 1000 == 0:
                await publisher.flush()
        await publisher.create_and_wait(SESSION, _NAMES[0], {"step": count}, timeout=_PATIENCE)


def cold(line: CommandLine) -> tuple[float, int]:
    """Seconds from the start of a process to the first page that it served, and the bytes of that page."""
    began = time.perf_counter()
    with running_console(line) as console, console.client() as client:
        first = client.get("/")
        return time.perf_counter() - began, len(first.raise_for_status().content)


def timed(console: Console, addresses: dict[str, str], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each page, and its bytes. The first answer is not counted: it compiles the template."""
    found = {}
    with console.client() as client:
        for name, address in addresses.items():
            size = len(client.get(address).raise_for_status().content)
            ordered = sorted(_milliseconds(client, address) for _ in range(repeats))
            found[name] = {
                "p50_ms": percentile(ordered, 0.5),
                "p99_ms": percentile(ordered, 0.99),
                "bytes": size,
            }
    return found


def _milliseconds(client: httpx.Client, address: str) -> float:
    began = time.perf_counter()
    client.get(address).raise_for_status()
    return (time.perf_counter() - began) * 1000


def measure(line: CommandLine, count: int, repeats: int) -> dict[str, Any]:
    """Fill the session with ``count`` checkpoints and measure; a worker runs only while it is filled."""
    worker = line.start("worker")
    try:
        worker.until("worker_ready")
        asyncio.run(fill(line, count))
    finally:
        worker.end()
    starts = [cold(line) for _ in range(max(1, repeats // 10))]
    with running_console(line) as console:
        found = timed(console, pages(count), repeats)
    seconds = sorted(one for one, _ in starts)
    start = {"p50_s": percentile(seconds, 0.5), "longest_s": seconds[-1], "first_page_bytes": starts[0][1]}
    return {"checkpoints": count, "repeats": repeats, "cold_start": start, "pages": found}


def lines(measured: dict[str, Any]) -> list[str]:
    """Return the measurements as text."""
    start = measured["cold_start"]
    return [
        f"cold start to the first page: {start['p50_s']:.2f} s, {start['longest_s']:.2f} s at the most "
        f"({'below' if start['p50_s'] < _COLD_SECONDS else 'not below'} {_COLD_SECONDS:g} s); "
        f"{start['first_page_bytes'] / 1000:.0f} KB",
        *(
            f"{name:<24} p50 {page['p50_ms']:7.1f} ms   p99 {page['p99_ms']:7.1f} ms   {page['bytes'] / 1000:6.0f} KB"
            for name, page in measured["pages"].items()
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark with its own servers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=int, default=FULL)
    parser.add_argument(
        "--repeats", type=int, default=50, help="requests of each page; a tenth as many starts"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench-console.json"))
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waypost-bench-")))
        servers = stack.enter_context(Servers(directory / "servers"))
        prefix = f"bench-{uuid.uuid4().hex[:8]}"
        line = CommandLine(
            directory,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": servers.endpoints.postgres_dsn,
                "WAYPOST_TOPIC_PREFIX": prefix,
                "WAYPOST_GROUP_ID": prefix,
            },
        )
        for words in (("migrate",), ("topics", "create", "--partitions", "2", "--skip-zombie-test")):
            line.run(*words)
        measured = measure(line, given.checkpoints, given.repeats)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), **measured}, indent=2) + "\n")
    print("\n".join(lines(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
