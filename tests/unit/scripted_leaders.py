"""Leaders that answer Produce requests as a test tells them to, and recognize a repeated batch."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

from aiokafka import TopicPartition
from aiokafka.protocol.produce import ProduceResponse_v7

from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import Connection

TOPIC = "results"
OFFSETS = 1000  # partition p begins at p * OFFSETS
DATED = 1_800_000_000_000  # milliseconds, when a broker takes a batch
NOTHING = object()  # a partition that the answer leaves out

#: How a partition is answered, once: an error code, a code and an offset, NOTHING, or an error of the whole request.
Script: TypeAlias = int | tuple[int, int] | Exception | object


@dataclass(frozen=True, slots=True)
class Sent:
    """A Produce request as it went out."""

    node: int
    lane: Hashable
    timeout_ms: int
    batches: dict[int, bytes]


class ScriptedLeaders(ClusterClient):
    """``leaders`` maps partitions to brokers; others are led by broker 1. ``open`` holds requests up before they are
    written, ``answering`` before they are answered.
    """

    def __init__(self, request_timeout: float = 10.0) -> None:
        super().__init__(Connection("scripted:1", request_timeout=request_timeout))
        self.sent: list[Sent] = []
        self.refreshed = 0
        self.leaders: dict[int, int] = {}
        self.scripts: dict[int, list[Script]] = defaultdict(list)
        self.open = _set_event()
        self.answering = _set_event()
        self.under_way = asyncio.Event()
        self.on_answer: Callable[[], None] = lambda: None
        self._logs: dict[int, list[bytes]] = defaultdict(list)

    async def use(self, user: object) -> None: ...

    async def release(self, user: object) -> None: ...

    async def refresh(self) -> None:
        self.refreshed += 1

    async def leader_of(self, partition: TopicPartition) -> int:
        return self.leaders.get(partition.partition, 1)

    async def begin(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> asyncio.Task[Any]:
        return asyncio.create_task(self._answer(node, request, lane))

    async def _answer(self, node: int, request: Any, lane: Hashable) -> Any:
        self.under_way.set()
        await self.open.wait()
        struct = request.prepare({0: (3, 7)})
        transactional_id, acks, timeout_ms, topics = (struct.get_item(name) for name in struct.SCHEMA.names)
        assert (transactional_id, acks) == (None, -1)
        ((topic, pairs),) = topics
        assert topic == TOPIC
        batches = {partition: bytes(batch) for partition, batch in pairs}
        assert len(batches) == len(pairs), "two batches of a partition in one request"
        self.sent.append(Sent(node, lane, timeout_ms, batches))
        scripts = {
            partition: self.scripts[partition].pop(0) for partition in batches if self.scripts[partition]
        }
        answers = []
        failed: Exception | None = None
        for partition, batch in batches.items():
            match scripts.get(partition, 0):
                case Exception() as error:  # the reply is lost
                    self._append(partition, batch)
                    failed = error
                case (code, offset):
                    answers.append((partition, code, offset, -1, 0))
                case 0:
                    answers.append((partition, 0, self._append(partition, batch), DATED, 0))
                case int() as code:
                    answers.append((partition, code, -1, -1, 0))
        await self.answering.wait()
        self.on_answer()
        if failed is not None:
            raise failed
        # No broker promises an order.
        return ProduceResponse_v7(topics=[(TOPIC, answers[::-1])], throttle_time_ms=0)

    def _append(self, partition: int, batch: bytes) -> int:
        log = self._logs[partition]
        if batch not in log:
            log.append(batch)
        return partition * OFFSETS + log.index(batch)


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
