"""The servers of one run, and the resources of each measurement: its own topics and database.

Knows both systems only as child processes that work between two topics.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.tools.bench.children import Child, ChildFailedError, WorkerChild
from tests.tools.bench.plan import PARTITIONS

from waypost import Topics
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.kafka.topics import topic_settings
from waypost_worker.postgres.migrate import migrate_dsn

System = Literal["bare", "service", "cores", "streams", "quix"]
# One worker, and one for each core.
SERVICES: Final[tuple[System, ...]] = ("service", "cores")
ACQUIRED = EventType.ACQUIRED.wire
_PATIENCE = 60.0
_POLL_SECONDS = 0.02


class Stage:
    """Running servers and one client of each, for looking and for making things."""

    def __init__(self, servers: Servers, logs: Path) -> None:
        self.bootstrap = servers.kafka.bootstrap_servers
        self.batch = 500  # of the bare loop; the probe may find a better one
        self._servers = servers
        self._worker_log = logs / "bench-worker.log"
        self._worker_log.unlink(missing_ok=True)
        self._numbers = itertools.count(1)
        # How systems that are not ours start; their results are committed in transactions.
        self.peers: dict[System, Callable[[Ground], Child]] = {}

    async def __aenter__(self) -> "Stage":
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    @property
    def kafka_pid(self) -> int:
        """The broker."""
        return self._servers.kafka.pid

    @property
    def postmaster_pid(self) -> int:
        """Postgres' first process."""
        return self._servers.postgres.pid

    @asynccontextmanager
    async def ground(self, partitions: int = PARTITIONS) -> AsyncIterator["Ground"]:
        """Make a fresh topic set and database; both are removed at the end."""
        number = next(self._numbers)
        looker = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        dsn = self._servers.postgres.create_database(f"bench_{number}")
        ground = Ground(self, f"bench-{number}", dsn, looker, partitions)
        await self._make_topics(ground.topics, partitions)
        await looker.start()
        try:
            yield ground
        finally:
            await looker.stop()
            await self._admin.delete_topics([ground.topics.commands, ground.topics.results])
            self._servers.postgres.drop_database(f"bench_{number}")

    async def checkpoint(self) -> None:
        """Let Postgres and the kernel write out what earlier measurements left.

        Gigabytes of writes are in the kernel's cache, and while it flushes them, commits wait for them, too: at 1,000
        per second, that turned a p99 of 17 ms into one of 113 ms.
        """
        connection: Any = await asyncpg.connect(self._servers.postgres.dsn)
        await connection.execute("checkpoint")
        await connection.close()
        await asyncio.to_thread(os.sync)

    async def wal_position(self) -> int:
        """Bytes of write-ahead log so far."""
        connection: Any = await asyncpg.connect(self._servers.postgres.dsn)
        try:
            return int(await connection.fetchval("select pg_current_wal_insert_lsn() - '0/0'"))
        finally:
            await connection.close()

    async def postgres_facts(self) -> dict[str, str]:
        """Version and the settings that matter most."""
        connection: Any = await asyncpg.connect(self._servers.postgres.dsn)
        try:
            names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size")
            return {name: await connection.fetchval("select current_setting($1)", name) for name in names}
        finally:
            await connection.close()

    def worker_environment(self, ground: "Ground") -> dict[str, str]:
        """The worker's settings: its defaults, and where to work."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
        return {
            **inherited,
            "WAYPOST_BOOTSTRAP_SERVERS": self.bootstrap,
            "WAYPOST_POSTGRES_DSN": ground.dsn,
            "WAYPOST_TOPIC_PREFIX": ground.topics.prefix,
            "WAYPOST_GROUP_ID": ground.topics.prefix,
        }

    @asynccontextmanager
    async def worker(self, ground: "Ground") -> AsyncIterator[Child]:
        """One worker more on this ground, which may be killed."""
        await migrate_dsn(ground.dsn)
        async with WorkerChild(self.worker_environment(ground), self._worker_log) as child:
            yield child

    @asynccontextmanager
    async def system(self, which: System, ground: "Ground", batch: int | None = None) -> AsyncIterator[Child]:
        """Start the bare loop or a worker on this ground, ready for commands."""
        if which in SERVICES:
            await migrate_dsn(ground.dsn)
            environment = self.worker_environment(ground)
            child: Child = WorkerChild(environment, self._worker_log, all_cores=which == "cores")
        elif which in self.peers:
            child = self.peers[which](ground)
        else:
            job = {
                "bootstrap": self.bootstrap,
                "dsn": ground.dsn,
                "prefix": ground.topics.prefix,
                "partitions": ground.partitions,
                "batch": batch or self.batch,
            }
            child = Child("tests.tools.bench.bare", job)
        async with child:
            yield child
        if child.exit_code != 0:
            raise ChildFailedError(
                f"the {which} ended with exit code {child.exit_code}; see {self._worker_log}"
            )

    async def ready(self, which: System, ground: "Ground", child: Child) -> None:
        """Wait until the system waits for commands."""
        if which not in SERVICES:
            await child.answer()
        else:
            # Each partition's results begin with the fence of its owner.
            await self.until(ground, child, lambda held: held >= ground.partitions)

    async def until(
        self, ground: "Ground", child: Child, enough: Callable[[int], bool], patience: float = _PATIENCE
    ) -> int:
        """Wait until the results topic holds enough; how many it holds then."""
        async with asyncio.timeout(patience):
            while True:
                held = await ground.results()
                if enough(held):
                    return held
                if not child.running:
                    raise ChildFailedError(f"the system under test ended; see {self._worker_log}")
                await asyncio.sleep(_POLL_SECONDS)

    async def _make_topics(self, topics: Topics, partitions: int) -> None:
        settings = topic_settings(topics, 1)
        # The broker's clock says when a result was in the topic, the same way for both systems.
        settings[topics.results]["message.timestamp.type"] = "LogAppendTime"
        await self._admin.create_topics(
            [NewTopic(name, partitions, 1, topic_configs=configs) for name, configs in settings.items()]
        )
        async with asyncio.timeout(_PATIENCE):
            while True:
                described = await self._admin.describe_topics([topics.commands, topics.results])
                leaders = [part["leader"] for topic in described for part in topic["partitions"]]
                if len(leaders) == 2 * partitions and min(leaders) >= 0:
                    return
                await asyncio.sleep(_POLL_SECONDS)


class Ground:
    """The place of one measurement."""

    def __init__(
        self, stage: Stage, prefix: str, dsn: str, looker: AIOKafkaConsumer, partitions: int
    ) -> None:
        self.topics = Topics(prefix)
        self.dsn = dsn
        self.partitions = partitions
        self._stage = stage
        self._looker = looker

    def load(self, kind: str, **job: Any) -> Child:
        """A load generator for this ground."""
        common = {
            "bootstrap": self._stage.bootstrap,
            "prefix": self.topics.prefix,
            "partitions": self.partitions,
        }
        return Child("tests.tools.bench.load", {"kind": kind, **common, **job})

    @property
    def bootstrap(self) -> str:
        """The brokers."""
        return self._stage.bootstrap

    def watcher(self, expected: int, isolation_level: str) -> Child:
        """A subscriber on this ground."""
        job = {
            "bootstrap": self._stage.bootstrap,
            "prefix": self.topics.prefix,
            "expected": expected,
            "isolation_level": isolation_level,
        }
        return Child("tests.tools.bench.watch", job)

    async def committed(self, expected: int, patience: float = 5 * _PATIENCE) -> list[int]:
        """Wait until this many committed results are readable. Return when each came, in ascending milliseconds,
        without fence records.
        """
        times: list[int] = []
        async with self._reader() as consumer, asyncio.timeout(patience):
            while len(times) < expected:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    times += [record.timestamp for record in records if not _is_fence(record)]
        return sorted(times)

    async def gaps(self, expected: int) -> list[float]:
        """Wait until this many results exist. Return the longest pause between two of each partition, in seconds."""
        times: dict[int, list[int]] = {}
        async with self._reader() as consumer, asyncio.timeout(5 * _PATIENCE):
            while sum(map(len, times.values())) < expected:
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    kept = times.setdefault(partition.partition, [])
                    kept += [record.timestamp for record in records if not _is_fence(record)]
        return [max(b - a for a, b in pairwise(sorted(kept))) / 1000 for kept in times.values()]

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._stage.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=8 * 1024 * 1024,
        )
        await consumer.start()
        try:
            consumer.assign(self._results())
            yield consumer
        finally:
            await consumer.stop()

    async def results(self) -> int:
        """Return how many records the results topic has."""
        ends = await self._looker.end_offsets(self._results())
        return sum(ends.values())

    def _results(self) -> list[TopicPartition]:
        return [TopicPartition(self.topics.results, number) for number in range(self.partitions)]

    async def rows(self, which: System) -> int:
        """Return how many checkpoints Postgres has."""
        connection: Any = await asyncpg.connect(self.dsn)
        table = "waypost.checkpoints" if which in SERVICES else "checkpoints"
        try:
            return int(await connection.fetchval(f"select count(*) from {table}"))
        finally:
            await connection.close()


def _is_fence(record: Any) -> bool:
    return any(name == "ce_type" and value == ACQUIRED for name, value in record.headers)
