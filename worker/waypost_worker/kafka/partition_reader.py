"""Reading one partition without a group: where it begins and ends, a stretch of it, or record after record.

Owns how a fetch is asked for and what its errors mean. The client's own consumer wraps each record in an object of
eleven fields and fetches only once everything was taken; for millions of records that is a third of the work.

What a fetch brings is decoded by ``waypost.kafka.record_batches``, which answers for every offset, whatever the bytes
are: records that nobody can read come as :class:`UnreadableRecord`. Uses aiokafka's connection, not its consumer.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from waypost.kafka.record_batches import Damaged, Hole, Piece, Records, Unreadable, decode_batches, end_of
from waypost.model.decisions import Rejected
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import (
    ReadProgress,
    RefusedError,
    UnavailableError,
    UnreadableRecord,
)

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
# What one call returns at most, so that batches that unpack to many times their size stay in bounds.
_GET_BYTES: Final = 16 * 1024 * 1024
# Decoding lets other tasks run this often, in seconds.
_TURN: Final = 0.02
# Where a batch says its format, and where its largest timestamp stands in format 2.
_MAGIC_AT: Final = 16
_TIMESTAMP: Final = slice(35, 43)
_COMMITTED: Final = "read_committed"
_ISOLATION: Final = {"read_uncommitted": 0, _COMMITTED: 1}


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
        self._pieces: Iterator[Piece] | None = None
        self._piece: Piece | None = None
        self._records: list[Any] = []
        # The last stable offset and the high watermark, as the last fetch found them.
        self._ends: tuple[int | None, int | None] = (None, None)
        self._ahead: asyncio.Task[Any] | None = None
        self._unasked = False  # whether that began before anybody waited for it

    @property
    def progress(self) -> ReadProgress:
        """How far :meth:`get` has come, and the ends of the log as the last fetch found them."""
        return ReadProgress(self._position, *self._ends)

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
        """Return the next records, at most ``most``; none if none came.

        Raises:
            RefusedError: The position is not in the log, or the log has a hole there.
        """
        async with kafka_errors(f"fetching {self._name}"):
            if self._pieces is not None and (found := await self._decode(most)):
                return found
            if self._pieces is None:
                await self._take(wait_ms / 1000)
            return await self._decode(most)

    async def _decode(self, most: int) -> list[Any]:
        """Take pieces of what was fetched until there are ``most`` records, or enough bytes."""
        taken: list[Any] = []
        size = 0
        clock = asyncio.get_running_loop().time
        turn = clock() + _TURN
        while len(taken) < most and size < _GET_BYTES:
            if not self._records and not self._next_piece(most - len(taken), may_fail=not taken):
                break
            room = most - len(taken)
            found, self._records = self._records[:room], self._records[room:]
            size += sum([len(record.value or b"") for record in found])
            if found:
                taken += found
                self._position = found[-1].offset + 1
            if clock() > turn:
                await asyncio.sleep(0)
                turn = clock() + _TURN
        return taken

    def _next_piece(self, most: int, *, may_fail: bool) -> bool:
        """Make the records of the next piece ready; False if there is none, or it must fail and records come first."""
        piece = self._piece
        if piece is None:
            piece = None if self._pieces is None else next(self._pieces, None)
        if piece is None:
            self._pieces = None
            return False
        self._piece = None
        match piece:
            case Records():
                self._records = list(piece.records)
            case Unreadable():
                last = min(piece.last, piece.first + most - 1)
                self._records = [_unreadable(piece, offset) for offset in range(piece.first, last + 1)]
                if last < piece.last:
                    self._piece = replace(piece, first=last + 1)
            case Hole() if self._isolation_level == _COMMITTED:
                if not may_fail:
                    self._piece = piece
                    return False
                self._forget()
                raise RefusedError(
                    f"{self._name} has no offsets {piece.first} to {piece.last}, although it has later ones: the "
                    "topic is compacted (cleanup.policy=compact), or records were removed from its middle. "
                    "Nothing was skipped or changed. Set cleanup.policy=delete; what was removed must come from "
                    "a snapshot or another copy"
                )
            case Damaged():
                if not may_fail:
                    self._piece = piece
                    return False
                self._forget()
                raise CorruptRecordException(piece.message)
            case _:
                self._position = piece.last + 1
        return True

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
        self._unasked = False
        self._pieces = self._piece = None
        self._records = []

    async def _take(self, seconds: float) -> None:
        """Make ready what the fetch under way brings, if it does so in time."""
        consumer = await self._started()
        fetch = self._ahead or asyncio.ensure_future(self._fetch(consumer._client, self._position))
        self._ahead = fetch
        done, _ = await asyncio.wait({fetch}, timeout=seconds)
        if not done:
            return
        self._ahead, unasked, self._unasked = None, self._unasked, False
        try:
            fetched = fetch.result()
        except OffsetOutOfRangeError:
            await self._refuse(self._position)
        except RequestTimedOutError:
            if not unasked:
                raise
            # Whoever decodes and folds 300,000 records of the fetch before lets the event loop turn too rarely for 8 MB
            # to arrive in time. That says nothing about Kafka.
            await self._take(seconds)
            return
        if fetched is None:
            return
        raw, aborted = fetched
        self._open(raw, aborted)
        if len(raw) > _FULL_BYTES and (end := end_of(raw)) > self._position:
            self._ahead = asyncio.ensure_future(self._fetch(consumer._client, end))
            self._unasked = True

    def _open(self, raw: bytes, aborted: Sequence[tuple[int, int]] | None) -> None:
        """Begin to decode what a fetch brought."""
        self._pieces = decode_batches(raw, self._position, aborted=aborted)

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
            _, code, high_watermark, *rest = response.topics[0][1][0]
            if code:
                raise for_code(code)(f"fetching {self._name} from {offset} on")
            self._ends = (rest[0], high_watermark) if rest[0] >= 0 else (None, None)
        except Exception as error:
            if not getattr(error, "invalid_metadata", False):
                raise
            await client.force_metadata_update()
            await asyncio.sleep(_NEW_LEADER_SECONDS)
            return None
        aborted = rest[2] if response.API_VERSION >= 11 else rest[-2]
        raw = bytes(rest[-1])
        if not raw:
            return None
        return raw, aborted or () if self._isolation_level == _COMMITTED else None

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


def _unreadable(piece: Unreadable, offset: int) -> UnreadableRecord:
    """Return what stands for one offset of a batch. The last offset of the batch keeps the bytes, once for all."""
    old = piece.batch[_MAGIC_AT] < 2
    timestamp = 0 if old else int.from_bytes(piece.batch[_TIMESTAMP], "big", signed=True)
    kept = bytes(piece.batch) if offset == piece.batch_end else b""
    return UnreadableRecord(offset, timestamp, kept, Rejected(piece.reason, piece.message))


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
