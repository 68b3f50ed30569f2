"""Kafka's view of the deployment: how far the log goes, and which workers run. Queried at most every few seconds."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from waypost.errors import KafkaUnavailableError
from waypost.kafka.log_ends import LogEnds
from waypost_worker.config.settings import Settings
from waypost_worker.console.checks import Checks
from waypost_worker.console.live import LiveResults
from waypost_worker.console.pages.health import Health, partition_health
from waypost_worker.console.reads import Reads
from waypost_worker.console.waiting import WaitingCommands
from waypost_worker.findings import Finding
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import worker_versions
from waypost_worker.partition.ports import OwnerError

_FRESH_SECONDS: Final = 3.0
_ASK_SECONDS: Final = 2.0
_DAY_HOURS: Final = 24


@dataclass
class _Answer:
    """Kafka's last answer."""

    at: float = -_FRESH_SECONDS
    ends: dict[int, int] | None = None
    count: int = 0
    workers: Counter[str] | None = None
    error: str | None = None
    workers_error: str | None = None


@dataclass
class Cluster:
    """The deployment's health."""

    connection: Connection
    topic: str
    group_id: str
    reads: Reads
    live: LiveResults
    databases: int
    log_ends: LogEnds
    waiting: WaitingCommands
    checks: Checks
    _answer: _Answer = field(default_factory=_Answer)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def health(self) -> Health:
        """Return the state of the deployment. Raise the errors of reads; an unreachable Kafka is part of the answer."""
        answer = await self._asked()
        rows = await self.reads.partitions()
        rejected = await self.reads.rejected_since(_DAY_HOURS)
        partitions = partition_health(rows, answer.ends, answer.count)
        behind = {one.partition: (one.next_offset, one.end) for one in partitions if one.end and one.lag}
        recorded = await self.waiting.recorded(behind)
        now = time.time()
        return Health(
            tuple(one.waiting_since(recorded.get(one.partition), now) for one in partitions),
            None if answer.workers is None else sum(answer.workers.values()),
            dict(answer.workers or {}),
            tuple(rejected),
            self.databases,
            answer.error,
            answer.workers_error,
            self.live.error,
        )

    async def findings(self, health: Health) -> tuple[Finding, ...]:
        """Return what doctor's checks found within the last minute."""
        workers = None if health.workers is None else Counter(health.versions)
        return await self.checks.findings(workers, health.lag)

    async def _asked(self) -> _Answer:
        async with self._asking:
            if time.monotonic() - self._answer.at >= _FRESH_SECONDS:
                found = _Answer(time.monotonic())
                await asyncio.gather(self._ends(found), self._workers(found))
                self._answer = found
            return self._answer

    async def _ends(self, answer: _Answer) -> None:
        try:
            answer.count = await self.log_ends.partition_count()
            ends = await asyncio.gather(*(self.log_ends.end_of(one) for one in range(answer.count)))
            answer.ends = dict(enumerate(ends))
        except KafkaUnavailableError as error:
            answer.error = str(error)

    async def _workers(self, answer: _Answer) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                answer.workers = await worker_versions(self.connection, self.group_id)
        except (OwnerError, TimeoutError, OSError) as error:
            answer.workers_error = str(error) or "Kafka did not answer in time"


@asynccontextmanager
async def cluster(
    settings: Settings, connection: Connection, client: ClusterClient, reads: Reads, live: LiveResults
) -> AsyncIterator[Cluster]:
    """Open what asks Kafka; connections are made when they are first needed."""
    topic = settings.topics.commands
    ends = LogEnds(topic, connection.options(), _ASK_SECONDS)
    try:
        yield Cluster(
            connection,
            topic,
            settings.group_id,
            reads,
            live,
            len(settings.dsns),
            ends,
            WaitingCommands(client, topic),
            Checks(settings, connection),
        )
    finally:
        await ends.close()
