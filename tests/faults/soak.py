"""``make soak MINUTES=n``: load and random faults together, with what workers hold drawn over time.

Samples resident memory, tasks, open files and lag every two seconds, deals one fault after the other, and ends
with the balance. Writes ``build/soak.json`` and ``build/soak.png``. Exit code 1 if anything is wrong.
"""

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

from rich.console import Console
from tests.faults.blows import Blows
from tests.faults.scene import Row, Scene, scene, seed_of_run
from tests.faults.soak_picture import draw
from tests.faults.ways import ways_of
from tests.faults.wire import COMMIT, KafkaReplies, Losses, PostgresReplies
from tests.support.servers import migrate_template

from waypost_worker.devserver import DevServerError, Endpoints, Servers

SAMPLE_SECONDS: Final = 2.0
WORKERS: Final = 3
PER_SECOND: Final = 150
console = Console(stderr=True)


class Diary:
    """What was measured and what was done, in seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.samples: list[dict[str, Any]] = []
        self.blows: list[dict[str, Any]] = []

    def now(self) -> float:
        return round(time.monotonic() - self._began, 2)

    async def keep(self, stage: Scene) -> None:
        """Sample until cancelled."""
        while True:
            workers = {}
            for worker in stage.alive:
                held: dict[str, Any] = {"resident_mb": round(worker.resident_bytes / 2**20, 1)}
                if not worker.frozen and worker.says("worker_ready"):
                    try:
                        held |= await worker.counts()
                    except (TimeoutError, ProcessLookupError):
                        held["silent"] = True  # frozen or ended just now
                workers[worker.name] = held
            self.samples.append({"at": self.now(), "lag": stage.lag(), "workers": workers})
            await stage.for_a_while(SAMPLE_SECONDS)


async def soak(minutes: float, seed: str, servers: Servers, directory: Path) -> dict[str, Any]:
    """Run it; everything that build/soak.json says."""
    dsn = servers.postgres.create_database("soak")
    migrate_template(dsn)
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, dsn)
    rows: list[Row] = []
    diary = Diary()
    commits, appends = Losses(Random(seed), chance=1), Losses(Random(seed), chance=1)
    wrong: str | None = None
    try:
        async with (
            scene(
                "soak", endpoints, "soak", directory, seed, rows, partitions=6, per_second=PER_SECOND
            ) as stage,
            ways_of(stage, lambda: KafkaReplies(appends), lambda: PostgresReplies(commits, COMMIT)) as ways,
        ):
            await stage.crew(WORKERS)
            keeping = asyncio.create_task(diary.keep(stage))
            blows = Blows(stage, servers, ways, commits, appends)
            try:
                while diary.now() < minutes * 60:
                    await stage.for_a_while(2 + 4 * stage.random.random())
                    await deal(stage, blows, diary)
                await stage.for_a_while(SAMPLE_SECONDS * 2)
            finally:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            console.print("folding the command topic and comparing with Postgres and the results …")
            await stage.judge()
    except (AssertionError, TimeoutError) as error:
        wrong = repr(error)[:2000]
    (row,) = rows
    return {
        "seed": int(seed_of_run()),
        "minutes": minutes,
        "good": row.good and wrong is None,
        "wrong": wrong,
        **row.to_dict(),
        "blows": Counter(one["kind"] for one in diary.blows),
        "eldest_worker": _growth(diary.samples),
        "longest_lag": max((sample["lag"] for sample in diary.samples), default=0),
        "events": diary.blows,
        "samples": diary.samples,
    }


async def deal(stage: Scene, blows: Blows, diary: Diary) -> None:
    """One fault, and the wait until all partitions go on."""
    kind = blows.next()
    event: dict[str, Any] = {"kind": kind, "at": diary.now()}
    diary.blows.append(event)
    await blows.kinds[kind]()
    event["healed_at"] = diary.now()
    await stage.healed()
    event["resumed_after"] = round(diary.now() - event["healed_at"], 2)
    console.print(f"{event['at']:7.1f} s  {kind:<22} all partitions went on after {event['resumed_after']} s")


def _growth(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What the worker that lived through everything held in the second and in the last quarter."""
    told = [one["workers"]["worker-1"] for one in samples if "tasks" in one["workers"].get("worker-1", {})]
    quarter = len(told) // 4
    if not quarter:
        return {}
    parts = {"second_quarter": told[quarter : 2 * quarter], "last_quarter": told[-quarter:]}
    return {
        name: {
            what: median(one[what] for one in part) for what in ("resident_mb", "tasks", "files", "owners")
        }
        for name, part in parts.items()
    }


def main() -> int:
    """Parse, run, write, draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--directory", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    # Publishers say every failed attempt at a broker that is away.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)
    seed = seed_of_run()
    console.print(f"soak for {arguments.minutes:g} minutes; repeat with WAYPOST_FAULTS_SEED={seed}")
    try:
        with Servers() as servers, tempfile.TemporaryDirectory(prefix="waypost-soak-") as scratch:
            found = asyncio.run(soak(arguments.minutes, f"{seed}/soak", servers, Path(scratch)))
    except DevServerError as error:
        console.print(f"[red]{error}[/]")
        return 1
    report = arguments.directory / "soak.json"
    report.write_text(json.dumps(found, indent=1) + "\n")
    draw(found, arguments.directory / "soak.png")
    shown = (
        "commands",
        "lost",
        "doubled",
        "out_of_order",
        "differing",
        "stuck",
        "resumed_after",
        "longest_lag",
    )
    console.print({name: found[name] for name in shown} | {"faults": sum(found["blows"].values())})
    console.print({"eldest worker": found["eldest_worker"]})
    for problem in [*found["problems"], found["wrong"]]:
        if problem:
            console.print(f"[red]{problem}[/]")
    console.print(f"written to {report} and {arguments.directory / 'soak.png'}")
    return 0 if found["good"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
