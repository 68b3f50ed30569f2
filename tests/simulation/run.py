"""Running seeds: one, or many over all cores, with the figures of a whole run."""

import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.oracle import fold
from tests.properties import naive
from tests.simulation.chaos import chaos
from tests.simulation.loop import RunawayError
from tests.simulation.oracle import SimulationReport, judge
from tests.simulation.plan import plan_of
from tests.simulation.world import World
from tests.support.processes import begin

from waypost.model import index, partition_state
from waypost_worker.partition import kept

REPORT = Path("build/simulation.json")
_TASKS_PER_CHUNK = 20
_COUNTED = (
    "commands",
    "lost",
    "doubled",
    "out_of_order",
    "stuck",
    "replayed",
    "restored",
    "accepted",
    "accepted_again",
)


@dataclass
class Outcome:
    """What one seed came to."""

    seed: int
    verdict: SimulationReport
    terms: int
    batches: int
    reemitted: int
    faults: dict[str, int]
    ends: dict[str, int]
    databases: int

    @property
    def failed(self) -> bool:
        return bool(self.verdict.problems)


@dataclass
class Report:
    """The figures of many seeds. ``lost``, ``doubled`` and ``out_of_order`` count commands; ``stuck``
    partitions. ``replayed`` counts the commands that replay applied once more, to an equal database, ``restored`` those
    of them that came behind a copy of an earlier moment, ``accepted`` those that went through the real publisher,
    ``accepted_again`` those of them that it brought into the log more than once. ``sharded`` counts the seeds with
    several databases.
    """

    seeds: int = 0
    sharded: int = 0
    first_seed: int = 0
    commands: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    stuck: int = 0
    replayed: int = 0
    restored: int = 0
    accepted: int = 0
    accepted_again: int = 0
    terms: int = 0
    batches: int = 0
    reemitted: int = 0
    seconds: float = 0.0
    seeds_per_minute: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    terms_ended_by: dict[str, int] = field(default_factory=dict)
    failing_seeds: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take one seed in."""
        verdict = outcome.verdict
        self.seeds += 1
        self.sharded += outcome.databases > 1
        for name in _COUNTED:
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        for name in ("terms", "batches", "reemitted"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.faults = dict(sorted((Counter(self.faults) + Counter(outcome.faults)).items()))
        self.terms_ended_by = dict(sorted((Counter(self.terms_ended_by) + Counter(outcome.ends)).items()))
        if outcome.failed:
            self.failing_seeds.append(outcome.seed)


def run_seed(seed: int, trace: Any = None) -> Outcome:
    """One world from beginning to end."""
    plan = plan_of(seed)
    with remembering(*plan.remembered), keeping(*plan.rejected_parts):
        world = World(plan, trace)
        try:
            world.run(chaos)
        except RunawayError as error:
            raise RunawayError(f"{error}; replay it with: {replay_command(seed)}") from None
        verdict = judge(world)
    return Outcome(
        seed,
        verdict,
        world.fleet.terms,
        world.fleet.batches,
        world.fleet.reemitted,
        world.faults,
        world.fleet.ends,
        len(world.databases),
    )


@contextmanager
def remembering(count: int, forget_above: int) -> Iterator[None]:
    """Sessions, and the oracle's own, remember so many command ids: a simulated life is short."""
    with ExitStack() as stack:
        for module in (index, partition_state, naive, fold):
            stack.enter_context(patch.object(module, "DEDUP_WINDOW", count))
        for module in (index, naive):
            stack.enter_context(patch.object(module, "FORGET_ABOVE", forget_above))
        yield


@contextmanager
def keeping(parts: int, rows: int) -> Iterator[None]:
    """Keep so many rejected commands, for a simulated life is short."""
    with patch.object(kept, "PARTS", parts), patch.object(kept, "PART_ROWS", rows):
        yield


def run_many(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """Outcomes in the order of seeds, ``jobs`` at a time."""
    if jobs <= 1:
        yield from map(run_seed, seeds)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    # Without pauses of the garbage collector; each process lives for some hundred worlds only.
    with context.Pool(jobs, initializer=begin, maxtasksperchild=25) as pool:
        yield from pool.imap(run_seed, seeds, chunksize=_TASKS_PER_CHUNK)


def replay_command(seed: int) -> str:
    """What replays exactly this seed, with a trace."""
    return f"python -m tests.simulation --seed {seed} --trace"


def run_and_report(first: int, count: int, jobs: int, out: Path = REPORT) -> Report:
    """Run seeds ``first`` to ``first + count - 1``, show progress, write the report."""
    report = Report(first_seed=first)
    began = shown = time.monotonic()
    for outcome in run_many(range(first, first + count), jobs):
        report.add(outcome)
        report.seconds = round(time.monotonic() - began, 1)
        report.seeds_per_minute = round(report.seeds * 60 / max(report.seconds, 0.1), 0)
        if outcome.failed:
            _progress("")
            print(f"seed {outcome.seed} FAILED; replay it with: {replay_command(outcome.seed)}")
            for problem in outcome.verdict.problems[:3]:
                print(f"    {problem[:200]}")
        if time.monotonic() - shown > 0.5:
            shown = time.monotonic()
            _progress(
                f"{report.seeds}/{count} seeds, {report.seeds_per_minute:.0f} a minute, "
                f"{len(report.failing_seeds)} failed"
            )
    _progress("")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return report


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
