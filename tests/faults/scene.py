"""A scenario's stage: topics, workers in processes, publishers, a live subscriber; and the verdict at its end.

The verdict comes from tests/oracle, which shares no code with the worker.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import asyncpg
from tests.faults.load import Load
from tests.faults.processes import WorkerProcess
from tests.oracle.books import Records, balance, read_all
from tests.oracle.live import LiveSubscriber, differences_seen
from tests.support.cli import CommandLine

from waypost import Topics
from waypost.shards import dsn_list, shard_of
from waypost_worker.devserver import Endpoints
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.topics import create_topics

RESUME_WITHIN: Final = 30.0  # seconds after a fault heals
LONGEST_WAIT: Final = 90.0  # a scenario that takes longer to resume is stuck
POOL_SIZE: Final = 8
# What a worker holds at rest. Partitions share connections: one to a broker for each lane, which a task reads.
# Measured with one broker and one database: 22 tasks and 23 files with one partition, 26 and 25 with three. The files
# that come with partitions are connections of the pool. Faults open lanes that a calm worker does not need.
TASKS_OF_ALL, TASKS_PER_OWNER, TASKS_PER_DATABASE = 24, 2, 2
FILES_OF_ALL = 26
CONNECTIONS_PER_BROKER = 10  # the lanes of the client, and those of the membership


@dataclass
class Row:
    """A line of the table."""

    scenario: str
    commands: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    differing: int = 0  # rows and results that are not what the command log gives
    stuck: int = 0
    seconds: float = 0.0
    resumed_after: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        found = (self.lost, self.doubled, self.out_of_order, self.differing, self.stuck)
        return not (any(found) or self.problems)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good}


class Scene:
    """What a scenario does things with."""

    def __init__(
        self, name: str, endpoints: Endpoints, prefix: str, directory: Path, seed: str, partitions: int
    ) -> None:
        self.endpoints = endpoints
        self.databases = dsn_list(endpoints.postgres_dsn)  # one, or one for each shard
        self.topics = Topics(prefix)
        self.partitions = partitions
        self.directory = directory
        self.random = Random(seed)
        self.row = Row(name)
        self.workers: list[WorkerProcess] = []
        self.load: Load
        self.live: LiveSubscriber
        # What workers are told in place of the endpoints: where a proxy stands between.
        self.worker_dsn = endpoints.postgres_dsn
        self.worker_arguments: tuple[str, ...] = ()
        self.rest_within = LONGEST_WAIT  # seconds, after which what workers still hold is a leak
        self.judged = False
        self._seed = seed
        self._began = time.monotonic()

    async def open(self, per_second: float) -> None:
        connection = Connection(self.endpoints.bootstrap_servers, request_timeout=5)
        await create_topics(connection, self.topics, self.partitions)
        self.live = LiveSubscriber(self.endpoints.bootstrap_servers, self.topics.results, self.partitions)
        self.load = Load(
            self.endpoints.bootstrap_servers, self.topics, self.partitions, self._seed, per_second
        )
        await self.load.start()

    async def kill_all(self) -> None:
        """SIGKILL every worker that is left."""
        for worker in self.workers:
            await worker.end(signal.SIGKILL)

    async def close(self) -> None:
        await self.kill_all()
        await self.load.close()
        await asyncio.to_thread(self.live.close)

    # Workers.

    async def worker(self, *arguments: str, **settings: str) -> WorkerProcess:
        """Start one more worker."""
        environment = {
            "WAYPOST_BOOTSTRAP_SERVERS": self.endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": self.worker_dsn,
            "WAYPOST_TOPIC_PREFIX": self.topics.prefix,
            "WAYPOST_GROUP_ID": self.topics.prefix,
            "WAYPOST_POSTGRES_POOL_SIZE": str(POOL_SIZE),
            **{f"WAYPOST_{name.upper()}": value for name, value in settings.items()},
        }
        made = WorkerProcess(
            f"worker-{len(self.workers) + 1}",
            self.directory,
            environment,
            (*self.worker_arguments, *arguments),
        )
        self.workers.append(made)
        return await made.start()

    async def crew(self, count: int, **settings: str) -> list[WorkerProcess]:
        """Start workers and wait until every one owns something and every partition is owned."""
        crew = [await self.worker(**settings) for _ in range(count)]

        def all_own() -> bool:
            for worker in crew:
                assert worker.alive, f"{worker.name} ended: {worker.log.read_text()[-2000:]}"
            return all(worker.says("partition_acquired") for worker in crew)

        await self.until(all_own)
        await self.until(lambda: all(self.live.terms[one] for one in range(self.partitions)))
        return crew

    def command_line(self) -> CommandLine:
        """The command line with this stage's settings."""
        return CommandLine(
            self.directory,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": self.endpoints.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": self.endpoints.postgres_dsn,
                "WAYPOST_TOPIC_PREFIX": self.topics.prefix,
                "WAYPOST_GROUP_ID": self.topics.prefix,
            },
        )

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.alive]

    def partitions_of(self, shard: int) -> list[int]:
        """The partitions that a database holds."""
        return [one for one in range(self.partitions) if shard_of(one, len(self.databases)) == shard]

    # Waiting.

    async def until(
        self, condition: Callable[[], bool | Awaitable[bool]], seconds: float = LONGEST_WAIT
    ) -> None:
        """Wait for a condition; the traceback names it if it never holds."""
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.02)

    def lag(self) -> int:
        """How many acknowledged commands have no result yet."""
        entries = self.load.ledger.entries
        return sum(max(entries[one]) - self.live.answered[one] for one in entries)

    async def answered(self, more: int) -> None:
        """Wait until so many more results have come."""
        goal = self.live.count + more
        await self.until(lambda: self.live.count >= goal)

    async def for_a_while(self, seconds: float) -> None:
        """The fault's duration, or the random moment of a blow: time itself is what is wanted here."""
        await asyncio.sleep(seconds)

    async def healed(self, partitions: Iterable[int] | None = None) -> None:
        """The fault is over, or never was one of these partitions: measure how long it takes until what is published
        there now is answered.
        """
        healed_at = time.monotonic()
        asked = range(self.partitions) if partitions is None else tuple(partitions)
        async with asyncio.timeout(LONGEST_WAIT):
            marks = dict(zip(asked, await asyncio.gather(*map(self.load.mark, asked)), strict=True))
            await self.until(lambda: all(self.live.answered[one] >= marks[one] for one in asked))
        took = time.monotonic() - healed_at
        self.row.resumed_after = max(self.row.resumed_after or 0.0, round(took, 2))

    # The verdict.

    async def judge(self, *, before: Records | None = None, results: Records | None = None) -> None:
        """Stop everything in good order, and ask the oracle. Fails with what is wrong.

        ``before`` are commands that were in the log, and ``results`` are results that were in theirs, should they not
        be there any more.
        """
        await self.load.stop()
        await self.all_answered()
        self.row.problems += await self._leaks()
        self.row.problems += await self._drain()
        await self._balance(_joined(before, await self.commands()), results_before=results)
        self._finish()

    async def judge_refused(self, commands: Records | None = None) -> None:
        """The same where partitions are refused: what was applied before is whole, and nothing else happened.

        ``commands`` is the log as it was, should it not be there any more.
        """
        await self.load.stop()
        self.row.problems += await self._drain()
        await self._balance(commands or await self.commands(), applied_only=True)
        self._finish()

    async def commands(self) -> Records:
        """The command log as it is now, without what transactions aborted."""
        return await read_all(self.endpoints, self.topics.commands, isolation_level="read_committed")

    def _finish(self) -> None:
        row = self.row
        row.seconds = round(time.monotonic() - self._began, 1)
        self.judged = True
        if (row.resumed_after or 0) > RESUME_WITHIN:
            row.problems.append(f"resumed only {row.resumed_after} s after the fault was over")
        assert row.good, row

    async def all_answered(self) -> None:
        """Wait until every acknowledged command has a result; what has none counts as stuck."""
        last = {partition: max(entries) for partition, entries in self.load.ledger.entries.items()}
        try:
            await self.until(
                lambda: all(self.live.answered[partition] >= offset for partition, offset in last.items()),
                RESUME_WITHIN,
            )
        except TimeoutError:
            behind = {p: offset - self.live.answered[p] for p, offset in last.items()}
            self.row.stuck = sum(behind.values())
            self.row.problems.append(f"stuck, commands without a result by partition: {behind}")

    async def _leaks(self) -> list[str]:
        """What workers hold beyond what the partitions they own account for, once it no longer shrinks."""
        problems: list[str] = []
        brokers = self.endpoints.bootstrap_servers.count(",") + 1

        async def at_rest() -> bool:
            found: list[str] = []
            pools = POOL_SIZE * len(self.databases)
            for worker in self.alive:
                found += _excess(worker.name, await worker.counts(), brokers, len(self.databases))
            connections = await self._connections()
            if connections > pools * len(self.alive):
                found.append(f"{connections} connections to Postgres for {len(self.alive)} workers")
            problems[:] = found  # at once: the time may be over in the middle of a look
            return not problems

        try:
            await self.until(at_rest, self.rest_within)
        except TimeoutError:
            return problems
        return []

    async def _drain(self) -> list[str]:
        names = [worker.name for worker in self.alive]
        codes = await asyncio.gather(*(worker.end(signal.SIGTERM) for worker in self.alive))
        problems = [
            f"{name} ended with {code} after SIGTERM" for name, code in zip(names, codes, strict=True) if code
        ]
        problems += [
            f"{worker.name} died of an error" for worker in self.workers if worker.says("owner_failed")
        ]

        async def none_left() -> bool:
            return await self._connections() == 0

        try:
            await self.until(none_left)
        except TimeoutError:
            problems.append(f"{await self._connections()} connections to Postgres are left without workers")
        return problems

    async def _connections(self) -> int:
        """Connections of workers to this scenario's databases."""
        return len(
            await self._rows(
                "select pid from pg_stat_activity "
                "where datname = current_database() and application_name = 'waypost'"
            )
        )

    async def _balance(
        self, commands: Records, *, applied_only: bool = False, results_before: Records | None = None
    ) -> None:
        row, live = self.row, self.live
        results = _joined(results_before, await read_all(self.endpoints, self.topics.results))
        row.problems += self.load.ledger.missing(commands)[:5]
        if applied_only:
            applied = await self.applied()
            commands = {
                partition: [record for record in records if record.offset < applied.get(partition, 0)]
                for partition, records in commands.items()
                if partition < self.partitions
            }
        ends = {partition: records[-1].offset + 1 for partition, records in results.items() if records}
        await self.until(lambda: all(live.position[one] >= end for one, end in ends.items()))
        row.problems += differences_seen(live.seen, results)
        books = await balance(self.endpoints.postgres_dsn, commands, results, live.ids)
        row.commands, row.lost, row.doubled = books.commands, books.lost, books.doubled
        row.out_of_order = books.out_of_order
        row.differing = len(books.row_problems) + len(books.result_problems)
        row.problems += [*books.row_problems[:5], *books.result_problems[:5]]

    async def applied(self, *databases: str) -> dict[int, int]:
        """The next offset of each partition, as these databases have it, or all."""
        found = await self._rows("select partition, next_offset from waypost.partitions", *databases)
        return {row["partition"]: row["next_offset"] for row in found}

    async def _rows(self, query: str, *databases: str) -> list[Any]:
        """Rows of these databases, or of all."""
        found: list[Any] = []
        for dsn in databases or self.databases:
            connection: Any = await asyncpg.connect(dsn)
            try:
                found += await connection.fetch(query)
            finally:
                await connection.close()
        return found


def _excess(name: str, counts: dict[str, int], brokers: int, databases: int) -> list[str]:
    owners = counts["owners"]
    more = (brokers - 1) * CONNECTIONS_PER_BROKER
    allowed = {
        "clusters": 2,  # of all partitions, and of the membership
        "memberships": 1,
        "users of connections": 3 * owners,  # the reader of commands, the log of results and its producer
        "producers of clients": 0,
        "readers of clients": 0,
        "pools": databases,
        "tasks": TASKS_OF_ALL + TASKS_PER_OWNER * owners + TASKS_PER_DATABASE * (databases - 1) + more,
        "files": FILES_OF_ALL + POOL_SIZE * databases + more,
    }
    return [
        f"{name} holds {counts[what]} {what} for {owners} partitions, at most {most} are accounted for"
        for what, most in allowed.items()
        if counts[what] > most
    ]


def _joined(before: Records | None, now: Records) -> Records:
    if before is None:
        return now
    return {
        partition: [
            *(one for one in before[partition] if not records or one.offset < records[0].offset),
            *records,
        ]
        for partition, records in now.items()
    }


@asynccontextmanager
async def scene(
    name: str,
    endpoints: Endpoints,
    prefix: str,
    directory: Path,
    seed: str,
    rows: list[Row],
    *,
    partitions: int = 4,
    per_second: float = 100,
) -> AsyncIterator[Scene]:
    """A stage of its own for one scenario; its row is written down however it ends."""
    made = Scene(name, endpoints, prefix, directory, seed, partitions)
    rows.append(made.row)
    try:
        await made.open(per_second)
        yield made
    finally:
        if not made.judged:
            made.row.problems.append("ended before the verdict")
        await made.close()


def pick(workers: Sequence[WorkerProcess], random: Random) -> WorkerProcess:
    """One of them."""
    return workers[random.randrange(len(workers))]


@cache
def seed_of_run() -> str:
    """The seed of this run of the scenarios: WAYPOST_FAULTS_SEED, or one that is drawn once."""
    # Not put into the environment: the settings take no variable of ours that is none of theirs.
    return os.environ.get("WAYPOST_FAULTS_SEED") or str(Random().randrange(2**31))
