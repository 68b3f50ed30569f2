"""``make fuzz MINUTES=n``: hostile inputs for a worker process, from a seed, with a table of what was tried."""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.inputs import KINDS, Input, input_of, save
from tests.fuzz.leg import (
    MIB,
    MOST_ALLOCATED,
    ROUND,
    BrokerEndedError,
    Leg,
    Tally,
    culprit,
    leg,
    rounds,
)
from tests.fuzz.table import progress, table
from tests.support.servers import migrate_template

from waypost_worker.devserver import Endpoints, Servers

REPORT: Final = Path("build/fuzz.json")
# After this long a leg ends with a verification and a replay, and another begins with empty topics and tables.
_LEG_SECONDS: Final = 240.0
_TOLD_SECONDS: Final = 5.0


@dataclass
class Run:
    """A run of several legs, each with servers of its own."""

    seed: int
    seconds: float
    kind: str | None
    tally: Tally = field(default_factory=Tally)
    findings: list[str] = field(default_factory=list)
    number: int = 0
    began: float = field(default_factory=time.monotonic)
    told: float = 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    async def run(self) -> None:
        """Send inputs until the time is up."""
        while self.elapsed < self.seconds:
            with _servers() as (servers, directory):
                try:
                    await self._leg(servers, directory)
                except BrokerEndedError:
                    self._note(f"the broker ended, at one of the {ROUND} inputs up to number {self.number}")

    async def _leg(self, servers: Servers, directory: Path) -> None:
        async with _fresh(servers, directory, "fuzz", self.tally, self.seed) as here:
            until = min(self.seconds, self.elapsed + _LEG_SECONDS)
            groups = iter(rounds(self._inputs(until)))
            # Beside the event loop, which follows the results: 16 MB are made in a tenth of a second.
            while (together := await asyncio.to_thread(next, groups, None)) is not None:
                problem = await here.judge(together)
                self._tell()
                if problem is None:
                    continue
                if not here.is_broken():
                    found = await culprit(here, together)
                    if found is not None:
                        self._found(*found)
                    else:
                        say(f"not again, so not a finding: {problem}")
                else:
                    await self._isolate(servers, directory, together, problem)
                if here.is_broken():
                    return
            wrong = await here.recovered()
            if wrong is not None:
                self._note(f"after input number {self.number}: {wrong}")

    def _inputs(self, until: float) -> Iterator[Input]:
        while self.elapsed < until:
            self.number += 1
            yield input_of(self.seed, self.number, self.kind)

    async def _isolate(
        self, servers: Servers, directory: Path, suspects: Sequence[Input], problem: str
    ) -> None:
        """Send the inputs of a round that broke its leg to a fresh worker each, until one breaks again."""
        if len(suspects) == 1:
            self._found(suspects[0], problem)
            return
        say(f"{problem}: looking for the input among {len(suspects)}")
        for number, one in enumerate(suspects):
            async with _fresh(servers, directory, f"fuzz_{number}", Tally(), self.seed) as here:
                again = await here.judge([one])
            if again is not None:
                self._found(one, again)
                return
        self._note(f"{problem}, by no input alone; the last of them is number {self.number} of the seed")

    def _found(self, one: Input, why: str) -> None:
        paths = save(one, why)
        self._note(f"{one.kind}, {one.name}: {why}\n  saved as {', '.join(path.name for path in paths)}")

    def _note(self, text: str) -> None:
        self.findings.append(text)
        say(f"FOUND {text}")

    def _tell(self) -> None:
        if self.elapsed - self.told > _TOLD_SECONDS:
            self.told = self.elapsed
            say(progress(self.elapsed, self.tally, len(self.findings)))


@contextmanager
def _servers() -> Iterator[tuple[Servers, Path]]:
    with (
        tempfile.TemporaryDirectory(prefix="waypost-fuzz-") as state,
        Servers(Path(state) / "servers") as servers,
    ):
        yield servers, Path(state)
        servers.kafka.kill()  # an orderly shutdown takes seconds, and nobody needs its data


@asynccontextmanager
async def _fresh(servers: Servers, directory: Path, name: str, tally: Tally, seed: int) -> AsyncIterator[Leg]:
    dsn = servers.postgres.create_database(name)
    migrate_template(dsn)
    (directory / name).mkdir()
    endpoints = Endpoints(servers.endpoints.bootstrap_servers, dsn)
    async with leg(endpoints, dsn, name, directory / name, tally, seed) as made:
        yield made


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run, print the table and write the report; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="default: another each time")
    parser.add_argument("--kind", choices=KINDS, help="only inputs of this kind")
    given = parser.parse_args()
    say(f"seed {given.seed}, {given.minutes:g} minutes, a worker with {MOST_ALLOCATED // MIB} MiB at most")
    say("starting Kafka and Postgres (about 10 s)")
    run = Run(given.seed, 60 * given.minutes, given.kind)
    asyncio.run(run.run())
    say(table(run.tally))
    say(f"seed {run.seed}: {len(run.findings)} findings in {run.elapsed / 60:.1f} minutes")
    for found in run.findings:
        say(f"- {found}")
    if run.findings:
        say("Failing inputs are in tests/fuzz/found; tests/fuzz/test_corpus.py sends them again.")
    REPORT.parent.mkdir(exist_ok=True)
    report = {"seed": run.seed, "minutes": given.minutes, "findings": run.findings, **vars(run.tally)}
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if run.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
