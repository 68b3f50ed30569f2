"""The library's idempotent producer as a publisher uses it, over the simulated cluster.

It keeps one batch of each partition under way and sends it again with the same sequence number until there is an
answer. What it can't retry (a gap in the sequence, a batch that is too large) fails the batch.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)
from tests.simulation.broker import CommandPartition, Coordinator
from tests.simulation.loop import current_process
from tests.simulation.network import Server
from tests.simulation.producers import OutOfOrderError

from waypost_worker.partition.ports import Fence, FencedError, ResultRecord, UnavailableError

BACKOFF = 0.1
_OVERHEAD = 70  # of a batch, besides its records


class Cluster:
    """What a producer sees of the command topic: ``away(partition)`` says whether it has no leader just now.

    ``most_bytes`` is the topic's max.message.bytes.
    """

    def __init__(
        self,
        server: Server,
        partitions: Sequence[CommandPartition],
        coordinator: Coordinator,
        away: Callable[[int], bool],
        now_ms: Callable[[], int],
        most_bytes: int,
    ) -> None:
        self.server = server
        self.partitions = partitions
        self.coordinator = coordinator
        self.most_bytes = most_bytes
        self.producers: list[SimulatedProducer] = []  # all that were ever started
        self._away = away
        self._now_ms = now_ms

    def append(self, partition: int, fence: Fence, first_sequence: int, batch: "SimulatedBatch") -> int:
        """What a leader does with a batch."""
        if self._away(partition):
            raise UnavailableError("not the leader")
        if batch.size() > self.most_bytes:
            raise MessageSizeTooLargeError(f"{batch.size()} bytes")
        log = self.partitions[partition]
        return log.append_batch(fence, first_sequence, self._now_ms(), tuple(batch.records))


class SimulatedBatch:
    """A batch builder."""

    def __init__(self) -> None:
        self.records: list[ResultRecord] = []
        self._bytes = _OVERHEAD

    def append(self, *, key: bytes | None, value: bytes, headers: Any) -> bool:
        self.records.append(ResultRecord(key, value, headers))
        self._bytes += len(key or b"") + len(value) + sum(len(name) + len(raw) for name, raw in headers)
        return True

    def size(self) -> int:
        return self._bytes


class SimulatedProducer:
    """Takes the place of a BatchProducer."""

    def __init__(self, cluster: Cluster, topic: str, options: Mapping[str, Any]) -> None:
        self.process = current_process()
        self.closed = False
        self.connections = self.cluster = self
        self.unauthorized_topics: frozenset[str] = frozenset()  # nobody lacks a permission here
        self._known = 0  # how many partitions it was told of
        self.task: asyncio.Task[None] | None = None
        self._cluster = cluster
        self._fence = Fence(-1, -1)
        self._sequences = [0] * len(cluster.partitions)
        self._waiting: list[tuple[int, SimulatedBatch, asyncio.Future[int]]] = []
        self._news = asyncio.Event()

    async def start(self) -> None:
        self._cluster.producers.append(self)
        try:
            self._fence = await self._cluster.server.call(
                "claim a producer id", self._cluster.coordinator.new_producer
            )
        except UnavailableError as error:
            raise KafkaConnectionError(str(error)) from error
        self.task = asyncio.create_task(self._send())

    async def add_topic(self, topic: str) -> None:
        try:
            self._known = await self._cluster.server.call(
                f"partitions of {topic}", lambda: len(self._cluster.partitions)
            )
        except UnavailableError:
            self._known = 0

    async def force_metadata_update(self) -> None:
        await self.add_topic("commands")

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._known))

    def create_batch(self) -> SimulatedBatch:
        return SimulatedBatch()

    def send_batch(self, batch: SimulatedBatch, partition: int) -> "asyncio.Future[int]":
        landed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((partition, batch, landed))
        self._news.set()
        return landed

    async def close(self) -> None:
        self.closed = True
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, []
            await asyncio.gather(*(self._produce(*one) for one in waiting))

    async def _produce(self, partition: int, batch: SimulatedBatch, landed: "asyncio.Future[int]") -> None:
        first = self._sequences[partition]
        self._sequences[partition] += len(batch.records)
        effect = partial(self._cluster.append, partition, self._fence, first, batch)
        what = (
            f"produce {len(batch.records)} to p{partition}, producer {self._fence.producer_id}, from {first}"
        )
        while not landed.done():
            try:
                base = await self._cluster.server.call(what, effect)
            except OutOfOrderError as error:
                landed.set_exception(OutOfOrderSequenceNumber(str(error)))
            except FencedError as error:
                landed.set_exception(ProducerFenced(str(error)))
            except UnavailableError:
                await asyncio.sleep(BACKOFF)
            except KafkaError as error:
                landed.set_exception(error)
            else:
                landed.set_result(base)
