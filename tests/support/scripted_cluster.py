"""A cluster in memory behind a ClusterClient, for readers whose fetches a test wants to see.

Serves the requests of a connection one after the other and holds a fetch until there is something, as brokers do. It
speaks of time and of tasks through the running loop only, so it also works on virtual time.
"""

import asyncio
import struct
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, LeaderNotAvailableError
from aiokafka.producer.message_accumulator import BatchBuilder
from tests.simulation.loop import SimulatedLoop
from typing_extensions import override

from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.fetch_by_id import (
    UNKNOWN_TOPIC_ID,
    Asked,
    FetchAnswer,
    FetchByIdRequest,
    Fetched,
    TopicIdRequest,
)

TOPIC = "topic"
_T = TypeVar("_T")
_BASE_OFFSET = struct.Struct(">q")
_LEADER_EPOCH = struct.Struct(">i")
_LEADER_EPOCH_AT = 12
_OUT_OF_RANGE, _NOT_LEADER = 1, 6


def batch(first: int, values: Sequence[bytes], leader_epoch: int = 0) -> bytes:
    """A record batch as a broker keeps it."""
    builder = BatchBuilder(64 * 1024 * 1024, 0)
    for number, value in enumerate(values):
        builder.append(timestamp=number, key=b"k", value=value, headers=[("h", b"x")])
    raw = bytes(builder._build())
    at, end = _LEADER_EPOCH_AT, _LEADER_EPOCH_AT + _LEADER_EPOCH.size
    raw = raw[:at] + _LEADER_EPOCH.pack(leader_epoch) + raw[end:]
    return _BASE_OFFSET.pack(first) + raw[_BASE_OFFSET.size :]


class _Batch(NamedTuple):
    base: int
    end: int
    raw: bytes


@dataclass
class ScriptedLog:
    """One partition. ``errors`` are what the next fetches of it are answered with, one each."""

    leader: int
    start: int = 0
    end: int = 0
    batches: list[_Batch] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)


class Sent(NamedTuple):
    """A fetch that was sent: by number of the partition, the offsets that are asked for, and the leader epochs of the
    records before them.
    """

    node: int
    lane: Hashable
    wait_ms: int
    offsets: dict[int, int]
    epochs: dict[int, int]


class ScriptedCluster(ClusterClient):
    """Partitions of one topic on some brokers. ``seconds`` is what each request takes at least."""

    def __init__(
        self, partitions: int, nodes: Sequence[int] = (1,), seconds: float = 0.001, *, has_ids: bool = True
    ) -> None:
        super().__init__(Connection("nowhere:9092"))
        self.starts = 1
        self.topic_id = UUID(int=77)
        self.logs = {number: ScriptedLog(nodes[number % len(nodes)]) for number in range(partitions)}
        self.sent: list[Sent] = []
        self.under_way: list[Sent] = []
        self.refreshes = self.asked_for_ids = 0
        self.problems: list[Exception] = []  # what the next fetches fail with, as a whole
        self._seconds = seconds
        self._has_ids = has_ids
        self._news = asyncio.Event()
        self._broken: list[asyncio.Future[None]] = []
        self._lanes: dict[tuple[int, Hashable], asyncio.Lock] = defaultdict(asyncio.Lock)

    def append(self, partition: int, values: Sequence[bytes], leader_epoch: int = 0) -> None:
        """Append one batch."""
        log = self.logs[partition]
        end = log.end + len(values)
        log.batches.append(_Batch(log.end, end, batch(log.end, values, leader_epoch)))
        log.end = end
        self._tell()

    def move(self, partition: int, node: int) -> None:
        """Let another broker lead a partition."""
        self.logs[partition].leader = node
        self._tell()

    def break_connections(self) -> None:
        """Let all that is under way fail."""
        for one in self._broken:
            if not one.done():
                one.set_exception(KafkaConnectionError("broken"))

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @override
    async def use(self, user: object) -> None:
        self._users.add(user)

    @override
    async def release(self, user: object) -> None:
        self._users.discard(user)

    @override
    def known_leader_of(self, partition: TopicPartition) -> int | None:
        leader = self.logs[partition.partition].leader
        return leader if leader >= 0 else None

    @override
    async def leader_of(self, partition: TopicPartition) -> int:
        node = self.known_leader_of(partition)
        if node is None:
            raise LeaderNotAvailableError
        return node

    @override
    async def partitions_of(self, topic: str) -> int:
        return len(self.logs)

    @override
    async def refresh(self) -> None:
        self.refreshes += 1

    @override
    async def send(self, node: int, request: Any, lane: Hashable = Lane.CONTROL) -> Any:
        if isinstance(request, TopicIdRequest):
            self.asked_for_ids += 1
            await asyncio.sleep(self._seconds)
            if not self._has_ids:
                raise NotImplementedError  # as the client does if a broker is older than 3.1
            return SimpleNamespace(topics=[(0, TOPIC, self.topic_id)])
        if isinstance(request, FetchByIdRequest):
            asked = list(request.partitions)
            wait_ms = request._wait_ms
        else:  # by name
            asked = [
                Asked(self.topic_id, number, offset, -1, most)
                for _, partitions in request._topics
                for number, offset, most in partitions
            ]
            wait_ms = request._max_wait_ms
        assert len({one.partition for one in asked}) == len(asked), "a partition is named twice"
        one = Sent(
            node,
            lane,
            wait_ms,
            {part.partition: part.offset for part in asked},
            {part.partition: part.last_epoch for part in asked},
        )
        self.sent.append(one)
        most = request._most_bytes if isinstance(request, FetchByIdRequest) else request._max_bytes
        with self._listed(one) as broken:
            answer = asyncio.ensure_future(self._serve(one, asked, most))
            await asyncio.wait({answer, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                answer.cancel()
                broken.result()
            found = answer.result()
        if isinstance(request, FetchByIdRequest):
            return SimpleNamespace(answer=FetchAnswer(0, found))
        named = [
            (number, one.error_code, one.high_watermark, one.stable_end, [], one.records)
            for (_, number), one in found.items()
        ]
        return SimpleNamespace(topics=[(TOPIC, named)], API_VERSION=4)

    @contextmanager
    def _listed(self, one: Sent) -> Iterator[asyncio.Future[None]]:
        broken = asyncio.get_running_loop().create_future()
        self.under_way.append(one)
        self._broken.append(broken)
        try:
            yield broken
        finally:
            self.under_way.remove(one)
            self._broken.remove(broken)

    async def _serve(self, one: Sent, asked: Sequence[Asked], most: int) -> dict[tuple[UUID, int], Fetched]:
        async with self._lanes[one.node, one.lane]:
            await asyncio.sleep(self._seconds)
            if self.problems:
                raise self.problems.pop(0)
            loop = asyncio.get_running_loop()
            until = loop.time() + one.wait_ms / 1000
            while True:
                found = self._look(one.node, asked, most)
                left = until - loop.time()
                if left <= 0 or any(part.records or part.error_code for part in found.values()):
                    return found
                try:
                    await asyncio.wait_for(self._news.wait(), left)
                except TimeoutError:
                    continue

    def _look(self, node: int, asked: Sequence[Asked], most: int) -> dict[tuple[UUID, int], Fetched]:
        found: dict[tuple[UUID, int], Fetched] = {}
        left, first = most, True
        for one in asked:
            log = self.logs[one.partition]
            code = self._error(node, one, log)
            records = b""
            for kept in log.batches if not code else ():
                if kept.end <= one.offset:
                    continue
                room = min(left, one.most_bytes) - len(records)
                if len(kept.raw) > room and not (first and not records):
                    break
                records += kept.raw
            first = first and not records
            left = max(0, left - len(records))
            ends = (-1, -1) if code else (log.end, log.end)
            found[one.topic_id, one.partition] = Fetched(code, *ends, [], records, None)
        return found

    def _error(self, node: int, one: Asked, log: ScriptedLog) -> int:
        if log.errors:
            return log.errors.pop(0)
        if one.topic_id != self.topic_id:
            return UNKNOWN_TOPIC_ID
        if log.leader != node:
            return _NOT_LEADER
        return 0 if log.start <= one.offset <= log.end else _OUT_OF_RANGE


def on_virtual_time(work: Callable[[], Coroutine[Any, Any, _T]], seed: int = 0) -> _T:
    """Run work on a loop that never waits."""
    loop = SimulatedLoop(Random(seed), shuffle=False)
    task = loop.create_task(work())
    try:
        assert loop.run(task.done, deadline=10_000), "it waits for something that never comes"
        found: _T = task.result()
        return found
    finally:
        # As asyncio.run does. Otherwise, Python ends them at any later time, in the middle of another test.
        left = asyncio.all_tasks(loop)
        for one in left:
            one.cancel()
        loop.run(lambda: all(one.done() for one in left), deadline=20_000)
