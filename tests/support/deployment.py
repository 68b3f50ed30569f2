"""A deployment of a test's own on the shared servers: topics, a database, owners in this process.

Owners run with the real ports; a test wraps or replaces one to break something. At the end `balanced` folds
the command topic independently and compares with Postgres and the results.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from tests.oracle.books import Books, Records, balance, follow, read_all
from tests.support.commands import create_body
from tests.support.timeouts import PATIENCE

from waypost import Topics
from waypost.shards import ShardSlot, dsn_list, shard_of
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Endpoints
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.command_log import KafkaCommandLog
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.results_log import KafkaResultsLog
from waypost_worker.kafka.topics import create_topics
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.owner import Owner
from waypost_worker.partition.ownership import Acquired, Limits
from waypost_worker.partition.ports import OwnerError, Ports
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.store import PostgresStore
from waypost_worker.runtime.clock import SystemClock
from waypost_worker.telemetry.observers import Observers

CREATE = EventType.CREATE.wire
TIME = b"2026-11-24T08:24:59.123456Z"


@dataclass
class Recorder:
    """An observer that remembers; `changed` is set whenever something happens."""

    terms: list[Acquired] = field(default_factory=list)
    ends: list[OwnerError | None] = field(default_factory=list)
    applied_count: int = 0
    emitted_count: int = 0
    hooks: list[Callable[[], None]] = field(default_factory=list)

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        self.terms.append(acquired)

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self.applied_count += len(batch.results)
        for hook in self.hooks:
            hook()

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        self.emitted_count += len(batch.results)

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        self.ends.append(why)

    def errors(self, kind: type[OwnerError]) -> list[OwnerError]:
        return [why for why in self.ends if isinstance(why, kind)]


class Running:
    """An owner with its task and what it told."""

    def __init__(self, owner: Owner, recorder: Recorder) -> None:
        self.owner = owner
        self.told = recorder
        self.task = asyncio.create_task(owner.run())

    async def stop(self) -> None:
        self.owner.stop()
        await asyncio.wait_for(self.task, PATIENCE)

    async def crash(self) -> None:
        """As near to SIGKILL as it gets inside a process: no release, no farewell."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Deployment:
    """Topics, a database, and what a test does with them."""

    def __init__(self, endpoints: Endpoints, dsn: str, prefix: str, partitions: int, timeout: float) -> None:
        self.endpoints = endpoints
        self.dsn = dsn
        self.topics = Topics(prefix)
        self.partitions = partitions
        self.connection = Connection(endpoints.bootstrap_servers, request_timeout=timeout)
        self.client = ClusterClient(self.connection)
        self.pool: Any = None
        self.pools: list[Any] = []  # of each shard; ``pool`` is the first one's
        self.producer: Any = None
        self._owners: list[Running] = []
        self.at_close: list[Callable[[], Awaitable[None]]] = []  # to end what a test may leave running

    # Commands.

    def sessions(self, partition: int, count: int = 3) -> list[str]:
        """Session ids that belong to a partition."""
        names = (f"session-{number}" for number in range(10_000))
        return [name for name in names if partition_of(name, self.partitions) == partition][:count]

    async def create(
        self, session_id: str, name: str = "n", *, command_id: str | None = None, **data: Any
    ) -> int:
        """Publish a create; its offset."""
        return await self.send(create_body(name, data), session_id.encode(), command_id=command_id)

    async def send(
        self,
        value: bytes | None,
        key: bytes | None,
        kind: bytes = CREATE,
        *,
        command_id: str | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> int:
        """Publish a record as it is; its offset."""
        if headers is None:
            headers = command_headers(command_id or str(uuid.uuid4()), b"/test", kind, TIME)
        if partition is None:
            partition = partition_of((key or b"").decode(), self.partitions)
        sent = await self.producer.send_and_wait(
            self.topics.commands, value, key=key, headers=headers, partition=partition
        )
        return int(sent.offset)

    # Owners.

    def ports(self, partition: int = 0) -> Ports:
        return Ports(
            make_log=lambda: KafkaCommandLog(self.client, self.topics.commands, partition),
            make_results=lambda: KafkaResultsLog(self.client, self.topics, partition),
            store=PostgresStore(self._pool_of(partition), partition, place=self._place_of(partition)),
            clock=SystemClock(),
        )

    def _place_of(self, partition: int) -> ShardSlot:
        shards = len(dsn_list(self.dsn))
        return ShardSlot(shard_of(partition, shards), shards)

    def _pool_of(self, partition: int) -> Any:
        # A test may have put another pool in the place of the only one.
        return self.pools[self._place_of(partition).shard] if len(self.pools) > 1 else self.pool

    def own(
        self,
        partition: int = 0,
        ports: Ports | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> Running:
        """Start an owner; ``observer`` is told besides the recorder."""
        recorder = Recorder()
        told = recorder if observer is None else Observers(recorder, observer)
        owner = Owner(partition, self.topics.results, ports or self.ports(partition), told, limits)
        running = Running(owner, recorder)
        self._owners.append(running)
        return running

    # Looking.

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], seconds: float = PATIENCE) -> None:
        """Wait for a condition; the assertion names it if it never holds."""
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.02)

    async def results(self) -> Records:
        return await read_all(self.endpoints, self.topics.results)

    async def answered(self, count: int, foreign: Collection[tuple[int, int]] = ()) -> None:
        """Wait until this many commands have a result. Records at ``foreign`` places are none."""
        if count <= 0:
            return
        found: set[tuple[int, int]] = set()
        async with (
            asyncio.timeout(PATIENCE),
            aclosing(follow(self.endpoints, self.topics.results)) as results,
        ):
            async for record in results:
                if _is_result(record) and (record.partition, record.offset) not in foreign:
                    found.add((record.partition, record.offset))
                if len(found) >= count:
                    return

    async def balanced(self, foreign: Collection[tuple[int, int]] = ()) -> Books:
        """Fold the log and compare; fails with what differs. Results at ``foreign`` places count for nothing."""
        commands = await read_all(self.endpoints, self.topics.commands)
        await self.answered(sum(len(records) for records in commands.values()), foreign)
        await self.until(lambda: self._applied(commands))
        results = {
            partition: [record for record in records if (partition, record.offset) not in foreign]
            for partition, records in (await self.results()).items()
        }
        books = await balance(self.dsn, commands, results, _ids(results))
        assert not books.row_problems, books.row_problems
        assert not books.result_problems, books.result_problems
        assert (books.lost, books.doubled) == (0, 0)
        return books

    async def _applied(self, commands: Records) -> bool:
        """Whether Postgres has every command. A restored Postgres lacks some that have their results already."""
        positions = {
            row["partition"]: row["next_offset"]
            for pool in (self.pool, *self.pools[1:])
            for row in await pool.fetch("select partition, next_offset from waypost.partitions")
        }
        return all(
            positions.get(partition, 0) > records[-1].offset
            for partition, records in commands.items()
            if records
        )

    async def close(self) -> None:
        for end in self.at_close:
            await end()
        for running in self._owners:
            await running.crash()
        await self.producer.stop()
        for pool in self.pools[1:]:
            await pool.close()
        await self.pool.close()


@asynccontextmanager
async def deployment(
    endpoints: Endpoints, dsn: str, prefix: str, partitions: int = 1, timeout: float = 5
) -> AsyncIterator[Deployment]:
    """Make topics and connections, and take everything down at the end. ``dsn`` may name several databases, which
    have noted their places already.
    """
    made = Deployment(endpoints, dsn, prefix, partitions, timeout)
    await create_topics(made.connection, made.topics, partitions)
    made.pools = [await open_pool(one, timeout=timeout) for one in dsn_list(dsn)]
    made.pool = made.pools[0]
    made.producer = AIOKafkaProducer(
        bootstrap_servers=endpoints.bootstrap_servers,
        enable_idempotence=True,
        max_request_size=2 * 1024 * 1024,
    )
    await made.producer.start()
    try:
        yield made
    finally:
        await made.close()


def _is_result(record: Any) -> bool:
    return dict(record.headers).get("ce_type") != EventType.ACQUIRED.wire


def _ids(results: Records) -> Counter[str]:
    return Counter(
        dict(record.headers)["ce_id"].decode()
        for records in results.values()
        for record in records
        if _is_result(record)
    )
