"""``python -m tests.tools.bench.telemetry``: what telemetry costs a worker, as a share of its CPU time for
each command.

A worker is one thread, and its CPU time per command limits its throughput. Telemetry is turned on and off within one
worker under steady load, in pairs of turns in random order (`telemetry_worker`), so that other load on the machine
affects both alike. There are three loads: 200 and 1,000 commands per second, where a batch is a few commands, and a
backlog, where it is hundreds. For each, there are two figures:

- the thread's CPU time spent in telemetry;
- the CPU time with telemetry, compared with that without, which also shows the effects of telemetry on the rest (such
  as caches), with the interval that contains 95 % of 10,000 resamplings of the pairs. On a busy machine, that is wide.
"""

import argparse
import asyncio
import json
import random
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.tools.bench.children import Child
from tests.tools.bench.plan import PARTITIONS, POSTGRES_SETTINGS
from tests.tools.bench.stage import Ground, Stage

from waypost_worker.devserver import THROUGHPUT, ClusterOptions, DevServerError, Servers
from waypost_worker.postgres.migrate import migrate_dsn

WRITTEN: Final = Path("build/bench-telemetry.json")
LOADS: Final = ("200", "1000", "backlog")
_WARM_SECONDS: Final = 5
_RESAMPLINGS: Final = 10_000
_BATCH: Final = 500
_LONGEST: Final = 600.0
_TURN_SECONDS: Final = 0.1
Turn = Sequence[
    Any
]  # whether telemetry was on, nanoseconds of CPU, commands, batches, nanoseconds in telemetry


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one load. Shares are of the worker's CPU time for a command without telemetry: ``inside`` by the stopwatch,
    ``added`` by the median pair of turns with and without, with the 95 % interval from ``lowest`` to ``highest``.
    """

    load: str
    pairs: int
    commands_in_a_batch: float
    cpu_us_without: float
    inside: float
    added: float
    lowest: float
    highest: float


def paired(turns: Sequence[Turn]) -> list[tuple[Turn, Turn]]:
    """The pairs of one worker's turns, with telemetry first; those without commands left out."""
    pairs = [
        (one, other) if one[0] else (other, one) for one, other in zip(turns[::2], turns[1::2], strict=False)
    ]
    return [(on, off) for on, off in pairs if on[2] and off[2]]


def cost(load: str, pairs: Sequence[tuple[Turn, Turn]], resamplings: int = _RESAMPLINGS) -> Cost:
    """From pairs of turns, at least one.

    Return the median of the pairs' ratios: a turn in which the machine froze would count for hundreds in a mean.
    """
    ratios = [(on[1] / on[2]) / (off[1] / off[2]) - 1 for on, off in pairs]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(resamplings))
    without = sum(off[1] for _, off in pairs) / sum(off[2] for _, off in pairs)
    within = sum(on[4] for on, _ in pairs) / sum(on[2] for on, _ in pairs)
    within -= sum(off[4] for _, off in pairs) / sum(off[2] for _, off in pairs)  # the stopwatch's own
    return Cost(
        load,
        len(pairs),
        round(
            sum(turn[2] for pair in pairs for turn in pair) / sum(turn[3] for pair in pairs for turn in pair),
            1,
        ),
        round(without / 1000, 1),
        round(within / without, 4),
        round(statistics.median(ratios), 4),
        round(medians[int(resamplings * 0.025)], 4),
        round(medians[int(resamplings * 0.975)], 4),
    )


async def paced(stage: Stage, rate: int, seconds: float) -> list[Turn]:
    """Turns of a worker under this rate."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        worker = await stack.enter_async_context(await _worker(stage, ground, _TURN_SECONDS))
        await stage.until(ground, worker, lambda held: held >= PARTITIONS)
        phases = [("warm", rate, _WARM_SECONDS), ("steady", rate, seconds + 2)]
        load = await stack.enter_async_context(ground.load("pace", phases=phases))
        await load.answer()
        load.tell("go")
        await asyncio.sleep(_WARM_SECONDS)
        worker.tell("begin")
        await asyncio.sleep(seconds)
        return await _turns(worker)


async def backlog(stage: Stage, commands: int) -> list[Turn]:
    """Run turns of a worker with this many waiting commands."""
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(stage.ground())
        async with ground.load("fill", commands=commands) as load:
            await load.answer()
            load.tell("go")
            await load.answer()
        await stage.checkpoint()
        worker = await stack.enter_async_context(await _worker(stage, ground, 0))
        # The first command of each session is not steady load.
        await stage.until(ground, worker, lambda held: held >= commands // 10, _LONGEST)
        worker.tell("begin")
        await stage.until(ground, worker, lambda held: held >= commands * 9 // 10, _LONGEST)
        return await _turns(worker)


async def _worker(stage: Stage, ground: Ground, turn: float) -> Child:
    await migrate_dsn(ground.dsn)
    environment = {**stage.worker_environment(ground), "WAYPOST_BATCH_RECORDS": str(_BATCH)}
    return Child("tests.tools.bench.telemetry_worker", {"seconds": turn}, environment=environment)


async def _turns(worker: Child) -> list[Turn]:
    worker.tell("enough")
    turns: list[Turn] = (await worker.answer())["turns"]
    return turns


async def main(arguments: argparse.Namespace, servers: Servers) -> None:
    """Measure, print, write."""
    told = []
    async with Stage(servers, WRITTEN.parent) as stage:
        for load in arguments.only or LOADS:
            pairs: list[tuple[Turn, Turn]] = []
            if load == "backlog":
                for _ in range(arguments.backlogs):
                    pairs += paired(await backlog(stage, arguments.commands))
            else:
                pairs = paired(await paced(stage, int(load), arguments.seconds))
            told.append(cost(load, pairs))
            _print(told[-1])
    before = json.loads(WRITTEN.read_text()) if WRITTEN.exists() else {}
    written = before | {one.load: asdict(one) for one in told}
    WRITTEN.write_text(json.dumps(written, indent=2) + "\n")


def _print(one: Cost) -> None:
    print(
        f"{one.load}: batches of {one.commands_in_a_batch}, {one.cpu_us_without} us a command without telemetry, "
        f"{one.inside:.2%} more inside of it; turns with it {one.added:+.1%} ({one.lowest:+.1%} to {one.highest:+.1%}, "
        f"{one.pairs} pairs)",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=LOADS, action="append", help="commands per second, or backlog")
    parser.add_argument("--seconds", type=float, default=120, help="of each rate")
    parser.add_argument("--commands", type=int, default=300_000, help="of one backlog")
    parser.add_argument("--backlogs", type=int, default=10)
    given = parser.parse_args()
    WRITTEN.parent.mkdir(exist_ok=True)
    try:
        with Servers(
            kafka=ClusterOptions(profile=THROUGHPUT), postgres_settings=POSTGRES_SETTINGS
        ) as running:
            asyncio.run(main(given, running))
    except DevServerError as error:
        raise SystemExit(f"the servers can't be started: {error}") from None
