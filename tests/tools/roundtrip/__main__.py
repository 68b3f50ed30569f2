"""``make round-trip COMMANDS=1000000``: is the replayed database the live one, and how fast does it get there?

A log with all kinds of commands goes through a worker. Then every recovery command runs on it, is killed halfway and
started again, and the outcomes are compared by hash. Damage is done, and must be found. Writes build/round-trip.json;
the exit code is 1 if anything is not as it must be.
"""

import argparse
import asyncio
import itertools
import json
import re
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer
from tests.support import workload
from tests.support.cli import CommandLine, Outcome, Started
from tests.support.database_state import state_hash

from waypost_worker.devserver import Servers

PREFIX = "waypost"
CHUNK = 20_000
REPORT = Path("build/round-trip.json")
DAMAGE = {
    "a flipped byte": "update {0}.checkpoints set data = set_byte(data, 2, get_byte(data, 2) # 1) where {1}",
    "a missing row": "delete from {0}.checkpoints where {1}",
    "an extra row": (
        "insert into {0}.checkpoints select session_id, 10000000, imported_id, name, taken_at, recorded_at, data, "
        "metadata, pinned, command_id, position from {0}.checkpoints where {1}"
    ),
}
ONE = "ctid = (select ctid from {0}.checkpoints order by session_id desc, number desc limit 1)"


class RoundTrip:
    """One run, with what it measured and what it found wrong."""

    def __init__(self, servers: Servers, directory: Path, given: argparse.Namespace) -> None:
        self.dsn = servers.postgres.create_database("round_trip")
        self.endpoints = servers.endpoints
        self.commands: int = given.commands
        self.partitions: int = given.partitions
        self.seed: int = given.seed
        self.only_creates: bool = given.only_creates
        self.seconds: dict[str, float] = {}
        self.wrong: list[str] = []
        self.line = CommandLine(
            directory,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": self.endpoints.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": self.dsn,
                "WAYPOST_TOPIC_PREFIX": PREFIX,
                "WAYPOST_SNAPSHOTS": str(directory / "snapshots"),
            },
        )

    async def run(self) -> None:
        """All of it, in order."""
        self._command("migrate")
        self._command("topics", "create", "--partitions", str(self.partitions), "--skip-zombie-test")
        await self._publish()
        await self._live()
        live = await state_hash(self.dsn)
        say(json.dumps(live))

        # Measured commands run to the end; commands that are killed use a separate schema.
        self._measured("replay", "replay", "--schema", "side")
        self._same(live, await state_hash(self.dsn, "side"), "replayed")
        self._measured("replay --no-compare", "replay", "--schema", "quick", "--no-compare")
        self._same(live, await state_hash(self.dsn, "quick"), "replayed without comparing")
        self._measured("verify", "verify")
        self._killed("replay: ", "replay", "--schema", "killed", "--batch-records", "500")
        self._same(live, await state_hash(self.dsn, "killed"), "replayed after SIGKILL")
        self._killed("verify: ", "verify", "--schema", "killed")
        self._killed("taking: ", "snapshot", "create")
        self._killed("restoring: ", "snapshot", "restore", "--schema", "restored")
        self._same(live, await state_hash(self.dsn, "restored"), "restored after SIGKILL")
        self._killed("verify: ", "verify", "--of-snapshot", "latest", "--memory", "64")
        self._command("verify", "--from-snapshot", "latest", "--schema", "restored")
        self._killed("replay: ", "replay", "--schema", "emitted", "--emit-to", "copy.results")
        self._same(live, await state_hash(self.dsn, "emitted"), "re-emitted after SIGKILL")
        self._killed("rebuild: ", "replay", "--from-results", "--schema", "told")
        self._command("replay", "--from-results", "--schema", "told_whole")
        self._same(
            await state_hash(self.dsn, "told_whole"),
            await state_hash(self.dsn, "told"),
            "rebuilt from results",
        )
        for name, statement in DAMAGE.items():
            await self._damaged(name, statement)

    async def _publish(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.endpoints.bootstrap_servers,
            enable_idempotence=True,
            max_batch_size=500_000,
            linger_ms=5,
        )
        await producer.start()
        sessions = max(20, self.commands // 500)
        make = workload.creates if self.only_creates else partial(workload.commands, erasing=True)
        wanted = make(self.seed, self.commands, self.partitions, sessions)
        while await workload.publish(producer, f"{PREFIX}.commands", itertools.islice(wanted, CHUNK)):
            pass
        await producer.stop()

    async def _live(self) -> None:
        """One worker, from an empty database to the end of the log."""
        worker = self.line.start("worker")
        try:
            connection: Any = await asyncpg.connect(self.dsn)
            query = "select coalesce(sum(next_offset), 0) from waypost.partitions"
            began = 0.0
            while (applied := await connection.fetchval(query)) < self.commands:
                began = began or (time.monotonic() if applied else 0.0)
                if worker.process.poll() is not None:
                    raise SystemExit(f"the worker ended: {''.join(worker.err[-3:])}")
                await asyncio.sleep(0.01)
            # A worker's start takes seconds, which says nothing about its speed.
            self._note("live", time.monotonic() - began)
            await connection.close()
            worker.stop()
        finally:
            worker.end()

    async def _damaged(self, name: str, statement: str) -> None:
        connection: Any = await asyncpg.connect(self.dsn)
        await connection.execute(statement.format("quick", ONE.format("quick")))
        await connection.close()
        found = self._start("verify", "--schema", "quick")
        outcome = found.wait(3600)
        said = next((line for line in outcome.out.splitlines() if line.startswith("checkpoints ")), "")
        if outcome.code != 1 or not said:
            self.wrong.append(f"{name} was not found: {outcome}")
        say(f"{name}: {said}")

    def _start(self, *arguments: str) -> Started:
        return self.line.start(*arguments)

    def _command(self, *arguments: str) -> Outcome:
        outcome = self._start(*arguments).wait(36_000)
        if outcome.code != 0:
            self.wrong.append(
                f"waypost {' '.join(arguments)} ended with {outcome.code}: {outcome.err[-500:]}"
            )
        return outcome

    def _measured(self, name: str, *arguments: str) -> None:
        """Run it. The seconds are those that it reports itself, without the start of the process."""
        outcome = self._command(*arguments)
        told = re.search(r"commands in ([0-9.]+) s", outcome.err)
        if told is not None:
            self._note(name, float(told[1]))

    def _killed(self, middle: str, *arguments: str) -> None:
        """Kill it once it says that it is under way, and start it again."""
        first = self._start(*arguments)
        first.until(middle, 36_000)
        first.stop(signal.SIGKILL, 60)
        self._command(*arguments)
        say(f"killed and started again: waypost {' '.join(arguments)}")

    def _same(self, wanted: dict[str, str], found: dict[str, str], what: str) -> None:
        say(f"{what}: {'the same by hash' if wanted == found else 'DIFFERENT'}")
        if wanted != found:
            self.wrong.append(f"{what} is not the same: {found} instead of {wanted}")

    def _note(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(max(seconds, 0.01), 2)
        say(f"{name}: {seconds:.1f} s, {self.commands / max(seconds, 0.01):,.0f} commands per second")

    def report(self) -> dict[str, Any]:
        """Seconds and ratios, without the start of processes."""
        live = self.seconds["live"]
        return {
            "commands": self.commands,
            "partitions": self.partitions,
            "seed": self.seed,
            "seconds": self.seconds,
            "times live": {name: round(live / seconds, 2) for name, seconds in self.seconds.items()},
            "wrong": self.wrong,
        }


def say(text: str) -> None:
    """Print progress immediately."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run it and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=50_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only-creates", action="store_true", help="1 KB each, for measuring")
    given = parser.parse_args()
    say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory() as state, Servers(Path(state)) as servers:
        trip = RoundTrip(servers, Path(state), given)
        asyncio.run(trip.run())
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(trip.report(), indent=2) + "\n")
    say(json.dumps(trip.report(), indent=2))
    raise SystemExit(1 if trip.wrong else 0)


if __name__ == "__main__":
    main()
