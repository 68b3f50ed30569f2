"""Reading one partition without a group: where it begins and ends, a stretch of it, or record after record.

Owns how a fetch is asked for and what its errors mean. The client's own consumer wraps each record in an object of
eleven fields and fetches only once everything was taken; for millions of records that is a third of the work.

Stands on internals of aiokafka's reader, as ``waypost.kafka.lenient`` does; the conformance suite holds them.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final, NoReturn

import google_crc32c
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from waypost.kafka.lenient import ODD, fetch_leniently
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import RefusedError, UnavailableError

FETCH_BYTES: Final = 8 * 1024 * 1024
_PIECE: Final = 5000
# A piece of nothing but transaction markers and aborted records comes as nothing: do not wait for more.
_PIECE_WAIT_MS: Final = 50
_CLOSE_SECONDS: Final = 1.0
_WAIT_MS: Final = 500
# A smaller fetch ended where the log does: one ahead would wait there, and come with the next record alone, while what
# follows that one waits for a whole batch more. One on demand brings all that is there by then.
_FULL_BYTES: Final = FETCH_BYTES // 2
_NEW_LEADER_SECONDS: Final = 0.1
# Where in a record batch its length ends, its format stands, and what is checked begins (Kafka's message format 2).
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_CHECKED_FROM: Final = 21
_ISOLATION: Final = {"read_uncommitted": 0, "read_committed": 1}


class _Records(PartitionRecords):
    """The records of a fetch, less the aborted ones, as they come out of the decoder."""

    raw = b""  # all that was fetched

    def all(self) -> list[Any]:
        """All of them, a batch at a time: the iterator of the base class costs each record a generator's turn and a
        call, and its checksum a twentieth of all that a worker does. Raises what that raises.
        """
        # The base class' iterator and this object hold each other, and with them all that was fetched, until the
        # collector looks, which is seldom.
        self._records_iterator = None
        found: list[Any] = []
        end = 0
        while self._records.has_next():
            batch = self._records.next_batch()
            start, end = end, end + _batch_bytes(self.raw, end)
            if not _is_intact(batch, self.raw, start, end):
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not self._is_hidden(batch):
                records = list(batch)
                if records and records[0].offset < self.next_fetch_offset:
                    records = [record for record in records if record.offset >= self.next_fetch_offset]
                found += records
            self.next_fetch_offset = batch.next_offset
        return found

    def _is_hidden(self, batch: Any) -> bool:
        """Whether nobody is to see this batch: a transaction's marker, or aborted records for a reader of what is
        committed.
        """
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            base: Any = super()
            base._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and base._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)


def _batch_bytes(log: bytes, start: int) -> int:
    behind = start + _LENGTH_END
    return _LENGTH_END + int.from_bytes(log[behind - 4 : behind], "big")


def _is_intact(batch: Any, log: bytes, start: int, end: int) -> bool:
    """Whether the checksum (CRC-32C, over all behind it) is right. Of batches older than Kafka's format 2 the client
    knows best.
    """
    if log[start + _MAGIC_AT] < 2:
        return bool(batch.validate_crc())
    return bool(google_crc32c.value(log[start + _CHECKED_FROM : end]) == batch.crc)


class PartitionReader:
    """Reads one partition, connected at the first call. It never resets its position by itself.

    At most two fetches of ``fetch_bytes`` are in memory.
    """

    def __init__(
        self,
        connection: Connection,
        partition: TopicPartition,
        isolation_level: str,
        fetch_bytes: int = FETCH_BYTES,
    ) -> None:
        self._connection = connection
        self._partition = partition
        self._isolation_level = isolation_level
        self._fetch_bytes = fetch_bytes
        self._name = f"{partition.topic}/{partition.partition}"
        self._consumer: AIOKafkaConsumer | None = None
        self._position = 0
        self._records: list[Any] = []
        self._behind = 0  # where to go on once these records are taken
        self._ahead: asyncio.Task[Any] | None = None

    async def partitions(self) -> int:
        """How many partitions the topic has. UnavailableError if it does not exist."""
        found = (await self._started()).partitions_for_topic(self._partition.topic)
        if not found:
            raise UnavailableError(
                f"the topic {self._partition.topic!r} does not exist yet: make it with 'waypost topics create'"
            )
        return len(found)

    async def bounds(self) -> tuple[int, int]:
        """The offset of the first record and the one behind the last that this reader may see."""
        consumer = await self._started()
        async with kafka_errors(f"asking where {self._name} begins and ends"):
            start, end = await asyncio.gather(
                consumer.beginning_offsets([self._partition]), consumer.end_offsets([self._partition])
            )
        return start[self._partition], end[self._partition]

    async def offset_at(self, milliseconds: int) -> int | None:
        """The offset of the first record with this timestamp or a later one; None where there is none."""
        consumer = await self._started()
        async with kafka_errors(f"asking for a time in {self._name}"):
            found = await consumer.offsets_for_times({self._partition: milliseconds})
        place = found.get(self._partition)
        return None if place is None else int(place.offset)

    async def seek(self, offset: int) -> None:
        """Go on from ``offset``, which is first looked for at the next :meth:`get`."""
        await self._started()
        self._forget()
        self._position = offset

    async def get(self, wait_ms: int, most: int) -> list[Any]:
        """The next records, at most ``most``; none if none came.

        RefusedError if the position is not in the log.
        """
        if not self._records:
            async with kafka_errors(f"fetching {self._name}"):
                await self._take(wait_ms / 1000)
        taken, self._records = self._records[:most], self._records[most:]
        if self._records:
            self._position = taken[-1].offset + 1
        else:
            self._position = max(self._position, self._behind)
        return taken

    async def read(self, first: int, end: int) -> AsyncGenerator[list[Any], None]:
        """The records from ``first`` up to but without ``end``, in pieces; gaps are passed over.

        RefusedError if ``first`` is not in the log; UnavailableError if nothing comes for request_timeout.
        """
        if first >= end:
            return
        await self.seek(first)
        seconds = self._connection.request_timeout
        loop = asyncio.get_running_loop()
        position, moved_at = first, loop.time()
        while position < end:
            records = await self.get(_PIECE_WAIT_MS, _PIECE)
            before, position = position, self._position
            if wanted := [record for record in records if record.offset < end]:
                yield wanted
            if position > before:
                moved_at = loop.time()
            elif loop.time() - moved_at > seconds:
                raise UnavailableError(
                    f"Kafka gave nothing of {self._name} from {position} on for {seconds:.0f} s, though the "
                    f"log goes on to {end}"
                )

    async def close(self) -> None:
        """Give up the connections; another call would connect again. Never raises."""
        self._forget()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await quietly(consumer.stop(), _CLOSE_SECONDS)

    def _forget(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            # What it would raise concerns nobody any more.
            ahead.add_done_callback(lambda task: task.cancelled() or task.exception())
            ahead.cancel()
        self._records, self._behind = [], 0

    async def _take(self, seconds: float) -> None:
        """Fill ``_records`` with what the fetch under way brings, if it does so in time."""
        consumer = await self._started()
        fetch = self._ahead or asyncio.ensure_future(self._fetch(consumer._client, self._position))
        self._ahead = fetch
        done, _ = await asyncio.wait({fetch}, timeout=seconds)
        if not done:
            return
        self._ahead = None
        try:
            records = fetch.result()
        except OffsetOutOfRangeError:
            await self._refuse(self._position)
        if records is None:
            return
        try:
            self._records, self._behind = records.all(), records.next_fetch_offset
        except ODD:
            self._records, self._behind = await fetch_leniently(
                consumer,
                self._partition,
                self._isolation_level,
                self._position,
                self._connection.request_timeout,
            )
        if len(records.raw) > _FULL_BYTES and self._behind > self._position:
            self._ahead = asyncio.ensure_future(self._fetch(consumer._client, self._behind))

    async def _fetch(self, client: Any, offset: int) -> Any:
        """What the leader has from ``offset`` on; None where it waited in vain, or is another one now.

        OffsetOutOfRangeError, and other KafkaErrors that don't pass with a look for the leader.
        """
        topic, partition = self._partition
        isolation = _ISOLATION[self._isolation_level]
        try:
            node = client.cluster.leader_for_partition(self._partition)
            if node is None or node < 0:
                raise LeaderNotAvailableError(f"{self._name} has no leader just now")
            asked = [(topic, [(partition, offset, self._fetch_bytes)])]
            request: Any = FetchRequest(_WAIT_MS, 1, 2 * self._fetch_bytes, isolation, asked)
            response = await client.send(node, request)
            _, code, _, *rest = response.topics[0][1][0]
            if code:
                raise for_code(code)(f"fetching {self._name} from {offset} on")
        except Exception as error:
            if not getattr(error, "invalid_metadata", False):
                raise
            await client.force_metadata_update()
            await asyncio.sleep(_NEW_LEADER_SECONDS)
            return None
        aborted = rest[2] if response.API_VERSION >= 11 else rest[-2]
        raw = bytes(rest[-1])
        batches = MemoryRecords(raw)
        if not batches.has_next():
            return None
        make: Any = _Records
        records = make(self._partition, batches, aborted, offset, None, None, True, isolation)
        records.raw = raw
        return records

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._connection.options(),
                group_id=None,
                enable_auto_commit=False,
                isolation_level=self._isolation_level,
            )
            try:
                async with kafka_errors("connecting a consumer"):
                    async with asyncio.timeout(self._connection.start_timeout):
                        await consumer.start()
                        # start() brings no metadata of a topic that is not subscribed to.
                        await consumer._client.add_topic(self._partition.topic)
            except BaseException:
                await quietly(consumer.stop(), _CLOSE_SECONDS)
                raise
            self._consumer = consumer
        return self._consumer

    async def _refuse(self, position: int) -> NoReturn:
        start, end = await self.bounds()
        raise RefusedError(
            f"{self._name} holds offsets {start} to {end - 1}, and {position} is to be read next: retention "
            "removed it, or the topic was recreated or cut. Nothing was skipped or changed; use the right "
            "cluster, or rebuild with 'waypost replay'"
        )


async def topic_bounds(connection: Connection, topic: str, partitions: int) -> list[tuple[int, int]]:
    """For each partition of a topic, the offset of its first record and the one behind its last.

    One consumer for all of them. UnavailableError or RefusedError, as for a :class:`PartitionReader`.
    """
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    consumer = AIOKafkaConsumer(**connection.options(), group_id=None, enable_auto_commit=False)
    try:
        async with kafka_errors(f"asking where {topic} begins and ends"):
            async with asyncio.timeout(connection.start_timeout):
                await consumer.start()
                await consumer._client.add_topic(topic)
            starts, ends = await asyncio.gather(
                consumer.beginning_offsets(wanted), consumer.end_offsets(wanted)
            )
    finally:
        await quietly(consumer.stop(), _CLOSE_SECONDS)
    return [(starts[partition], ends[partition]) for partition in wanted]
