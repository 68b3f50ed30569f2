"""Reads partitions of one topic, whatever others wrote there: one fetch per broker, decoded within limits.

Owns which partitions are fetched, and records that were fetched and not taken yet. Neither groups nor positions that
outlive it.
"""

import asyncio
import logging
import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from waypost.errors import InvalidArgumentError
from waypost.kafka.bounded_fetch import Decoded, Fetched, decode_fetched, fetched_in
from waypost.kafka.client_options import require_client_options
from waypost.kafka.log_offsets import END, FIRST, ISOLATION, READ_COMMITTED, offsets_at
from waypost.kafka.topic_client import TopicClient

log = logging.getLogger("waypost")
_T = TypeVar("_T")
_FETCH: Final = "fetch"
_REQUEST_MS: Final = 40_000
# A partition with more than this is not fetched until some of it was taken.
_MOST_RECORDS: Final = 1000
_MOST_BYTES: Final = 1024 * 1024
# A partition that becomes free again must not wait for the long poll of another.
_SHORT_POLL_MS: Final = 50
_REPLICA_SECONDS: Final = 300.0


def require_consumer_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError if a consumer of aiokafka would not accept these options."""
    require_client_options(AIOKafkaConsumer, options)
    if options.get("isolation_level", "read_committed") not in ISOLATION:
        raise InvalidArgumentError(f"isolation_level must be one of {', '.join(ISOLATION)}")


@dataclass(slots=True, eq=False)
class _Reading:
    """A partition that is read. ``position`` is the next offset to give, ``offset`` the next one to fetch.

    A seek replaces it, and answers that are still on their way come to nothing.
    """

    position: int
    offset: int
    fetched: deque[Decoded] = field(default_factory=deque)
    given: int = 0  # records of the first of ``fetched``
    count: int = 0
    size: int = 0
    is_asked: bool = False
    again_at: float = 0.0
    error: Exception | None = None
    replica: tuple[int, float] | None = None  # and until when it is asked

    def is_full(self) -> bool:
        return self.count > _MOST_RECORDS or self.size > _MOST_BYTES

    def put(self, decoded: Decoded) -> None:
        self.fetched.append(decoded)
        self.count += len(decoded.records)
        self.size += decoded.size
        self.offset = decoded.behind

    def take(self, most: int | None) -> list[Any]:
        """Return the next records, and move behind them and what can't be read after them."""
        found: list[Any] = []
        while self.fetched and (most is None or len(found) < most):
            first = self.fetched[0]
            until = len(first.records) if most is None else self.given + most - len(found)
            records = first.records[self.given : until]
            self.given += len(records)
            if records:
                found += records
                self.position = records[-1].offset + 1
            if self.given == len(first.records):
                self.fetched.popleft()
                self.given, self.size = 0, self.size - first.size
                self.position = first.behind
        self.count -= len(found)
        return found


class TopicReader(TopicClient):
    """A reader of partitions, each from its own position. All calls must come from one event loop.

    ``options`` are those of an aiokafka consumer; those about groups, positions and decoding are not used. ``passed``
    gets a partition and the next offset each time all records before it were taken. ``unreachable`` gets a text when a
    broker can't be reached. If retention overtakes a reader, it continues with what is left.
    """

    def __init__(
        self,
        topic: str,
        options: Mapping[str, Any],
        *,
        passed: Callable[[TopicPartition, int], None] | None = None,
        unreachable: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(topic, options, unreachable)
        self._passed = passed
        self._isolation = ISOLATION[options.get("isolation_level", "read_uncommitted")]
        self._max_wait_ms = int(options.get("fetch_max_wait_ms", 500))
        self._min_bytes = int(options.get("fetch_min_bytes", 1))
        self._max_bytes = int(options.get("fetch_max_bytes", 50 * 1024 * 1024))
        self._partition_bytes = int(options.get("max_partition_fetch_bytes", 1024 * 1024))
        self._rack = str(options.get("client_rack") or "")
        self._timeout = options.get("request_timeout_ms", _REQUEST_MS) / 1000
        self._readings: dict[TopicPartition, _Reading] = {}
        self._first = 0  # of the partitions at the next take
        self._arrived = asyncio.Event()
        self._is_stopped = False

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaConnectionError: No broker can be reached.
        """
        await self.connections.bootstrap()
        self._begin(self._run())

    async def stop(self) -> None:
        """Disconnect. Takes seconds at most, and calls of :meth:`take` return nothing."""
        self._is_stopped = True
        self._arrived.set()
        await self._end_tasks()
        await self.connections.close()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read a partition from this offset on."""
        self._readings[partition] = _Reading(offset, offset)
        self._changed.set()

    def read_only(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._readings.clear()
        for partition, offset in positions.items():
            self.seek(partition, offset)

    def leave_out(self, partition: TopicPartition) -> None:
        """Read a partition no more."""
        self._readings.pop(partition, None)

    def position(self, partition: TopicPartition) -> int:
        """Return the offset that :meth:`take` continues from: behind what can't be read, if all before it was taken."""
        return self._readings[partition].position

    async def first_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the first offset of each partition.

        Raises:
            KafkaError: Kafka refuses.
            TimeoutError: It does not answer in time.
        """
        return await self.offsets_at(dict.fromkeys(partitions, FIRST))

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset after the last record that this reader may get. Raises as :meth:`first_offsets`."""
        return await self.offsets_at(dict.fromkeys(partitions, END))

    async def offsets_at(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the offset of the first record with this timestamp (ms since 1970) or a later one; -1 if none has.

        Raises as :meth:`first_offsets`.
        """
        async with asyncio.timeout(self._timeout):
            return await offsets_at(self.connections, times, self._isolation)

    async def take(self, seconds: float, most: int | None = None) -> dict[TopicPartition, list[Any]]:
        """Return up to ``most`` of the next records, or nothing if none come in time.

        Raises:
            TopicAuthorizationFailedError: This client may not read the topic.
        """
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while True:
            self._arrived.clear()
            self._raise_error()
            found = {} if self._is_stopped else self._take(most)
            if found or self._is_stopped or clock() >= end:
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await self._arrived.wait()

    def _raise_error(self) -> None:
        for reading in self._readings.values():
            if reading.error is not None:
                error, reading.error = reading.error, None
                self._changed.set()
                raise error

    def _take(self, most: int | None) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = {}
        self._first += 1
        for partition, reading in _from(self._first, list(self._readings.items())):
            if most is not None and most <= 0:
                break
            if not reading.fetched:
                continue
            was_full = reading.is_full()
            if records := reading.take(most):
                found[partition] = records
                most = None if most is None else most - len(records)
            if was_full:
                self._changed.set()
            if not reading.fetched and self._passed is not None:
                self._passed(partition, reading.position)
        return found

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            again_at = self._fetch_what_is_due()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(again_at):
                    await self._changed.wait()

    def _fetch_what_is_due(self) -> float | None:
        """Begin requests to brokers that have none under way. Return when to look again, if nothing happens before."""
        now = asyncio.get_running_loop().time()
        due: dict[int, list[tuple[TopicPartition, _Reading]]] = defaultdict(list)
        waiting: list[float] = []
        with_full: set[int] = set()
        # Only the first partition with records gives a batch of any size, so any of them may be the first.
        readings = list(self._readings.items())
        for partition, reading in _from(random.randrange(max(1, len(readings))), readings):
            if reading.is_asked or reading.error is not None:
                continue
            if reading.again_at > now:
                waiting.append(reading.again_at)
                continue
            node = self._node_of(partition, reading, now)
            if node is None:
                self._refresh()
            elif reading.is_full():
                with_full.add(node)
            elif node not in self._asked:
                due[node].append((partition, reading))
        for node, listed in due.items():
            self._asked.add(node)
            for _, reading in listed:
                reading.is_asked = True
            max_wait_ms = min(self._max_wait_ms, _SHORT_POLL_MS) if node in with_full else self._max_wait_ms
            self._begin(self._fetch(node, listed, max_wait_ms))
        return min(waiting, default=None)

    def _node_of(self, partition: TopicPartition, reading: _Reading, now: float) -> int | None:
        cluster = self.connections.cluster
        if reading.replica is not None:
            node, until = reading.replica
            if until > now and cluster.broker_metadata(node) is not None:
                return node
            reading.replica = None
        leader = cluster.leader_for_partition(partition)
        return None if leader is None or leader < 0 else int(leader)

    async def _fetch(
        self, node: int, listed: list[tuple[TopicPartition, _Reading]], max_wait_ms: int
    ) -> None:
        readings = dict(listed)
        try:
            wanted = [
                (partition.partition, reading.offset, self._partition_bytes) for partition, reading in listed
            ]
            request: Any = FetchRequest(
                max_wait_ms,
                self._min_bytes,
                self._max_bytes,
                self._isolation,
                [(self.topic, wanted)],
                self._rack,
            )
            for fetched in fetched_in(await self.connections.send(node, request, group=_FETCH)):
                reading = readings[fetched.partition]
                try:
                    await self._keep(reading, fetched)
                except Exception as error:
                    self._fail(reading, error)
        except KafkaError as error:
            log.debug("broker %s answers no fetch: %r", node, error)
            for reading in readings.values():
                self._delay(reading)
            self._refresh()
        except Exception as error:
            for reading in readings.values():
                self._fail(reading, error)
        finally:
            for reading in readings.values():
                reading.is_asked = False
            self._asked.discard(node)
            self._changed.set()

    async def _keep(self, reading: _Reading, fetched: Fetched) -> None:
        partition = fetched.partition
        if self._readings.get(partition) is not reading:
            return
        error = for_code(fetched.error_code)
        if fetched.error_code == 0:
            if fetched.replica >= 0:
                reading.replica = fetched.replica, asyncio.get_running_loop().time() + _REPLICA_SECONDS
            decoded = await decode_fetched(
                fetched, reading.offset, committed=self._isolation == READ_COMMITTED
            )
            if decoded.behind > reading.offset:
                reading.put(decoded)
                self._arrived.set()
            elif fetched.raw:
                self._delay(reading)
        elif error is OffsetOutOfRangeError and reading.replica is None:
            await self._restart(partition, reading)
        elif error is TopicAuthorizationFailedError:
            self._delay(reading)
            self._fail(reading, error(self.topic))
        else:
            log.debug("%s/%s: %s", self.topic, partition.partition, error.__name__)
            self._delay(reading)
            self._refresh()

    async def _restart(self, partition: TopicPartition, reading: _Reading) -> None:
        self._delay(reading)
        try:
            first = (await self.first_offsets([partition]))[partition]
            end = (await self.end_offsets([partition]))[partition]
        except (KafkaError, TimeoutError):
            return
        if first <= reading.offset <= end:
            # KAFKA-16073: while it moves segments to tiered storage, a broker may deny offsets that it has. Starting
            # over would deliver the whole topic again.
            log.debug("%s/%s has offset %d after all", self.topic, partition.partition, reading.offset)
            return
        if self._readings.get(partition) is reading and not reading.fetched:
            log.warning(
                "%s/%s no longer has offset %d; reading continues at %d",
                self.topic,
                partition.partition,
                reading.offset,
                first,
            )
            self.seek(partition, first)

    def _delay(self, reading: _Reading) -> None:
        reading.replica = None  # the leader knows better
        reading.again_at = asyncio.get_running_loop().time() + self._backoff

    def _fail(self, reading: _Reading, error: Exception) -> None:
        reading.error = error  # raised where the application asks for records
        self._arrived.set()


def _from(first: int, every: list[_T]) -> list[_T]:
    """Return all, beginning with the one at ``first`` and counting around."""
    at = first % max(1, len(every))
    return every[at:] + every[:at]
