"""``make demo``: agents, two workers, one of them killed halfway, and the books balanced at the end.

Exits non-zero if one command was lost, doubled or applied wrongly. Writes ``build/demo.json``. With ``OPEN=1``,
servers, a worker and the console run on until Ctrl-C, to look at what happened.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tests.oracle.books import Books, balance, read_all, topic_ends
from tests.tools.demo.table import explained, removed_by_retention

from waypost import Subscriber, Topics
from waypost.wire.event_types import EventType
from waypost_worker.cli.dev import prepare
from waypost_worker.devserver import ClusterOptions, DevServerError, Endpoints, Servers

PREFIX = "demo"
AGENTS, PROCESSES, COMMANDS, PER_SECOND, PARTITIONS = 20, 4, 250, 12.5, 6
SESSION_TIMEOUT = 3  # seconds until the killed worker's partitions move; the default is 10
TIME_LIMIT = 100
console = Console(stderr=True)


class Worker:
    """A real ``waypost worker`` process."""

    def __init__(self, number: int, endpoints: Endpoints, prefix: str, logs: Path) -> None:
        self.number = number
        self.log = (logs / f"worker-{number}.log").open("wb")
        self.environment = {
            **os.environ,
            "WAYPOST_BOOTSTRAP_SERVERS": endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": endpoints.postgres_dsn,
            "WAYPOST_TOPIC_PREFIX": prefix,
            "WAYPOST_SESSION_TIMEOUT": str(SESSION_TIMEOUT),
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; its log goes to a file."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "waypost_worker.cli.worker.child",
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
        )

    async def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int | None:
        """SIGTERM; the exit code of its drain."""
        if self.process is None or self.process.returncode is not None:
            return None
        self.process.terminate()
        return await self.process.wait()


class Watcher:
    """A live subscriber with a default (read_uncommitted) consumer: what it sees, and how late."""

    def __init__(self, endpoints: Endpoints, prefix: str) -> None:
        self.subscriber = Subscriber(endpoints.bootstrap_servers, topic_prefix=prefix, from_beginning=True)
        self.ids: Counter[str] = Counter()
        self.arrivals: list[tuple[float, float]] = []  # (arrived, seconds since the command was made)

    async def watch(self) -> None:
        """Run until canceled."""
        async for event in self.subscriber:
            self.ids[event.id] += 1
            now = time.time()
            if event.type == EventType.CREATED and event.checkpoint is not None:
                self.arrivals.append((now, now - event.checkpoint.timestamp.timestamp()))


async def agents(endpoints: Endpoints, prefix: str, seed: int) -> list[asyncio.subprocess.Process]:
    """Start the agents' processes."""
    each = AGENTS // PROCESSES
    return [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.tools.demo.agents", "--bootstrap", endpoints.bootstrap_servers),
            *("--prefix", prefix, "--first", str(number * each), "--agents", str(each)),
            *("--commands", str(COMMANDS), "--per-second", str(PER_SECOND), "--seed", str(seed)),
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]


async def play(endpoints: Endpoints, logs: Path, seed: int) -> dict[str, Any]:
    """The whole demo; the figures."""
    prefix = PREFIX
    topics = Topics(prefix)
    await prepare(endpoints, topics, PARTITIONS)
    workers = [Worker(number, endpoints, prefix, logs) for number in (1, 2)]
    for worker in workers:
        await worker.start()
    console.print("waiting until the workers own all partitions …")
    while not all((await topic_ends(endpoints, topics.results)).values()):  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.2)
    watcher = Watcher(endpoints, prefix)
    watching = asyncio.create_task(watcher.watch())
    processes = await agents(endpoints, prefix, seed)
    console.print(
        f"[bold]{AGENTS} agents[/] in {PROCESSES} processes, [bold]2 workers[/], {PARTITIONS} partitions; "
        f"seed {seed}"
    )
    began = time.time()
    killed_at = 0.0
    total = AGENTS * COMMANDS
    with Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TextColumn("{task.completed:>6}"),
        TimeElapsedColumn(),
        console=console,
        transient=False,
    ) as progress:
        published = progress.add_task("commands published", total=total)
        answered = progress.add_task("results seen", total=total)
        while True:
            commands = sum((await topic_ends(endpoints, topics.commands)).values())
            progress.update(published, completed=commands, total=max(total, commands))
            progress.update(answered, completed=sum(watcher.ids.values()), total=max(total, commands))
            if not killed_at and commands >= total // 2:
                await workers[0].kill()
                killed_at = time.time()
                progress.console.print(
                    "[bold red]SIGKILL[/] to worker 1, with half of the commands published"
                )
            over = all(process.returncode is not None for process in processes)
            if over and len(watcher.ids) >= commands:
                break
            if time.time() - began > TIME_LIMIT:
                progress.console.print("[red]time is up: not all commands have a result[/]")
                break
            await asyncio.sleep(0.5)
    seconds = time.time() - began
    told = [json.loads((await process.stdout.read()) or b"{}") for process in processes if process.stdout]
    exits = [await worker.stop() for worker in workers]
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    console.print("folding the command topic and comparing with Postgres and the results …")
    results = await read_all(endpoints, topics.results)
    books = await balance(
        endpoints.postgres_dsn, await read_all(endpoints, topics.commands), results, watcher.ids
    )
    drained = exits[1] == 0
    found = figures(books, watcher, seconds, killed_at, drained, told)
    return {**found, "removed_by_retention": removed_by_retention(results)}


def figures(
    books: Books,
    watcher: Watcher,
    seconds: float,
    killed_at: float,
    drained: bool,
    told: list[dict[str, int]],
) -> dict[str, Any]:
    """The numbers of build/demo.json."""
    late = sorted(latency for _, latency in watcher.arrivals)
    window = [arrived for arrived, _ in sorted(watcher.arrivals)]
    gaps = [
        later - earlier for earlier, later in pairwise(window) if killed_at - 1 < earlier < killed_at + 15
    ]
    calm = sorted(
        latency
        for arrived, latency in watcher.arrivals
        if not killed_at <= arrived < killed_at + SESSION_TIMEOUT + 3
    )
    return {
        "commands": books.commands,
        "applied": books.applied,
        "rejected": books.rejected,
        "duplicates": books.duplicates,
        "lost": books.lost,
        "doubled": books.doubled,
        "rows_differing": len(books.row_problems),
        "results_differing": len(books.result_problems),
        "checkpoints": books.rows,
        "checkpoints_ever": books.numbers,
        "commands_per_second": round(books.commands / seconds, 1),
        "latency_ms": {
            "p50": percentile(calm, 0.5),
            "p99": percentile(calm, 0.99),
            "p50_with_the_kill": percentile(late, 0.5),
            "max_with_the_kill": percentile(late, 1.0),
        },
        "longest_silence_at_the_kill_s": round(max(gaps, default=0.0), 2),
        "meant_to_be_refused": sum(one.get("meant_to_be_refused", 0) for one in told),
        "survivor_drained": drained,
        "problems": (books.row_problems + books.result_problems)[:20],
    }


def percentile(ordered: list[float], part: float) -> float | None:
    """In milliseconds."""
    if not ordered:
        return None
    return round(1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))], 1)


def show(found: dict[str, Any], good: bool) -> None:
    """The table at the end."""
    table = Table(title="One worker was killed. The balance:", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("which means")
    for what, count, meaning in explained(found):
        bad = what in ("lost", "doubled", "rows differing") and count != "0"
        table.add_row(what, f"[{'red' if bad else 'default'}]{count}[/]", meaning)
    Console().print(table)
    console.print(
        "Each agent set its retention to 60 / 40 / 15. The default is 100 / 50 / 20: at most 100 checkpoints, and "
        "above 50 only the latest of each name between the first and the last 20 (docs/retention.md)."
    )
    for problem in found["problems"]:
        console.print(f"[red]{problem}[/]")
    console.print(
        "[bold green]nothing lost, nothing doubled[/]" if good else "[bold red]the books do not balance[/]"
    )


def main() -> int:
    """Run it on its own servers."""
    seed = int(os.environ.get("WAYPOST_DEMO_SEED", random.randrange(2**31)))
    os.environ.pop("WAYPOST_DEMO_SEED", None)
    build = Path("build")
    build.mkdir(exist_ok=True)
    console.print("starting an embedded Kafka and Postgres (the first time fetches 44 MB) …")
    try:
        with Servers(
            kafka=ClusterOptions(
                progress=lambda done, total, name: console.print(f"  {name} ({done} of {total})")
            )
        ) as servers:
            found = asyncio.run(play(servers.endpoints, build, seed))
            good = balanced(found)
            (build / "demo.json").write_text(json.dumps({**found, "seed": seed}, indent=2) + "\n")
            show(found, good)
            if os.environ.get("OPEN"):
                asyncio.run(look_around(servers.endpoints, build))
    except DevServerError as error:
        console.print(f"[red]{error}[/]")
        return 1
    if not os.environ.get("OPEN"):
        console.print(
            "Next: [bold]make demo OPEN=1[/] shows these sessions in a browser, and docs/tutorial.md lets you publish "
            "your own. All figures are in build/demo.json."
        )
    return 0 if good else 1


def balanced(found: dict[str, Any]) -> bool:
    """Return whether everything came out as it must."""
    return (
        not any(found[key] for key in ("lost", "doubled", "rows_differing", "results_differing"))
        and found["commands"] >= AGENTS * COMMANDS
        and found["rejected"] >= found["meant_to_be_refused"] > 0
        and bool(found["survivor_drained"])
    )


async def look_around(endpoints: Endpoints, logs: Path) -> None:
    """Run a worker and the console until Ctrl-C."""
    from waypost_worker.config.settings import load_settings
    from waypost_worker.console.serve import console as serving

    settings = load_settings(
        bootstrap_servers=endpoints.bootstrap_servers,
        postgres_dsn=endpoints.postgres_dsn,
        topic_prefix=PREFIX,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    worker = Worker(3, endpoints, PREFIX, logs)
    await worker.start()
    try:
        async with serving(
            settings, lambda link: console.print(f"For another browser: {link}", soft_wrap=True)
        ) as link:
            console.print(
                f"Look at the sessions: {link}\nCtrl-C stops everything.", highlight=False, soft_wrap=True
            )
            await stop.wait()
    finally:
        await worker.stop()


if __name__ == "__main__":
    raise SystemExit(main())
