"""Reading one partition without a group: where it begins and ends, a stretch of it, or record after record.

Owns how a fetch is asked for and what its errors mean. The client's own consumer wraps each record in an object of
eleven fields and fetches only once everything was taken; for millions of records that is a third of the work.

What a fetch brings is decoded by ``waypost.kafka.record_batches``, which answers for every offset, whatever the bytes
are: records that nobody can read come as :class:`UnreadableRecord`. Uses the process's shared connections.

A reader stays with one log. From Kafka 3.1 on it asks by the topic's id and tells which leader wrote what it has, so a
topic of the same name or a log that was cut answers with an error. Older brokers are asked by name; there the reader
only counts what may announce such a change (``disturbances``).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, NoReturn
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from waypost.kafka.record_batches import Damaged, Hole, Piece, Records, Unreadable, decode_batches, end_of
from waypost.model.decisions import Rejected
from waypost_worker.kafka.client import ClusterClient, Lane
from waypost_worker.kafka.connection import kafka_errors
from waypost_worker.kafka.fetch_by_id import (
    INCONSISTENT_TOPIC_ID,
    NO_EPOCH,
    UNKNOWN_TOPIC_ID,
    FetchByIdRequest,
    Fetched,
    TopicIdRequest,
    fetched_in,
    topic_id_in,
)
from waypost_worker.kafka.list_offsets import (
    READ_COMMITTED,
    READ_UNCOMMITTED,
    end_offsets,
    first_offsets,
    offsets_at,
)
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
_WAIT_MS: Final = 500
# What a stretch is read of is there already. Fetches of several stretches share a connection.
_READ_WAIT_MS: Final = 20
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
_ISOLATION: Final = {"read_uncommitted": READ_UNCOMMITTED, _COMMITTED: READ_COMMITTED}
_OTHER_TOPIC: Final = (UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID)


class PartitionReader:
    """Reads one partition, connected at the first call. It never resets its position by itself.

    At most two fetches of ``fetch_bytes`` are in memory. ``topic_id`` is the id of the topic to read; if None, the
    topic keeps the id that it has at first. ``disturbances`` counts answers and broken connections that may mean that
    the log has another leader now or is another log. Fetches go in ``lane``, where nothing else may wait for long.
    """

    def __init__(
        self,
        client: ClusterClient,
        partition: TopicPartition,
        isolation_level: str,
        fetch_bytes: int = FETCH_BYTES,
        topic_id: UUID | None = None,
        lane: Hashable = Lane.READ,
    ) -> None:
        self.disturbances = 0
        self._topic_id = topic_id
        self._has_ids = True  # until a broker turns out to be too old for them
        self._client = client
        self._lane = lane
        self._seen_start = 0  # the client's, at the last fetch
        self._partition = partition
        self._isolation_level = isolation_level
        self._fetch_bytes = fetch_bytes
        self._name = f"{partition.topic}/{partition.partition}"
        self._position = 0
        self._last_epoch = NO_EPOCH  # leader epoch of the last record that was fetched before the position
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
        """Return how many partitions the topic has. UnavailableError if it does not exist."""
        topic = self._partition.topic
        async with self._asking(f"asking for the partitions of {topic}"):
            found = await self._client.partitions_of(topic)
        if not found:
            raise UnavailableError(
                f"the topic {topic!r} does not exist yet: make it with 'waypost topics create'"
            )
        return found

    async def bounds(self) -> tuple[int, int]:
        """Return the offset of the first record and the one behind the last that this reader may see."""
        async with self._asking(f"asking where {self._name} begins and ends"):
            (bounds,) = await _bounds(self._client, [self._partition], _ISOLATION[self._isolation_level])
        return bounds

    async def offset_at(self, milliseconds: int) -> int | None:
        """Return the offset of the first record with this timestamp or a later one; None if there is none."""
        isolation = _ISOLATION[self._isolation_level]
        async with self._asking(f"asking for a time in {self._name}"):
            found = await offsets_at(self._client, {self._partition: milliseconds}, isolation)
        return None if found[self._partition] < 0 else found[self._partition]

    async def topic_id(self) -> UUID | None:
        """Return the id of the topic that is read; None if brokers are too old to tell, or if there is no such topic
        yet.
        """
        if self._topic_id is None and self._has_ids:
            async with self._asking(f"asking for the id of {self._partition.topic}"):
                self._topic_id = await self._ask_topic_id()
        return self._topic_id

    @property
    def last_epoch(self) -> int:
        """The leader epoch of the last record that was fetched, or -1."""
        return self._last_epoch

    async def seek(self, offset: int, last_epoch: int = NO_EPOCH) -> None:
        """Go on from ``offset``, which is first looked for at the next :meth:`get`.

        ``last_epoch`` is the leader epoch of the record before it, if that is known.
        """
        self._forget()
        self._position, self._last_epoch = offset, last_epoch

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
        seconds = self._client.connection.request_timeout
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
        await self._client.release(self)

    @asynccontextmanager
    async def _asking(self, doing: str) -> AsyncIterator[None]:
        """Raise UnavailableError or RefusedError for what goes wrong while ``doing`` something, also if it takes too
        long.
        """
        async with kafka_errors(doing):
            async with asyncio.timeout(self._client.connection.start_timeout):
                await self._client.use(self)
                yield

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
        await self._client.use(self)
        fetch = self._ahead or asyncio.ensure_future(self._fetch(self._position, self._last_epoch))
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
        end, last_epoch = end_of(fetched.records)
        if last_epoch > NO_EPOCH:
            if last_epoch < self._last_epoch:  # later records are never of an earlier leader
                self._refuse_cut(self._position, end)
            self._last_epoch = last_epoch
        self._open(fetched.records, fetched.aborted if self._isolation_level == _COMMITTED else None)
        if len(fetched.records) > _FULL_BYTES and end > self._position:
            self._ahead = asyncio.ensure_future(self._fetch(end, last_epoch))
            self._unasked = True

    def _open(self, raw: bytes, aborted: Sequence[tuple[int, int]] | None) -> None:
        """Begin to decode what a fetch brought."""
        self._pieces = decode_batches(raw, self._position, aborted=aborted)

    async def _fetch(self, offset: int, last_epoch: int) -> Fetched | None:
        """What the leader has from ``offset`` on; None where it waited in vain, or is another one now.

        RefusedError if the log is another one now. OffsetOutOfRangeError, and other KafkaErrors that don't pass with a
        look for the leader.
        """
        try:
            node = await self._client.leader_of(self._partition)
            if self._client.starts != self._seen_start:
                self.disturbances += self._seen_start > 0
                self._seen_start = self._client.starts
            fetched = await self._ask(node, offset, last_epoch)
            if fetched.error_code in _OTHER_TOPIC:
                await self._check_topic_id()
                raise LeaderNotAvailableError(f"a broker does not know the id of {self._name} yet")
            if fetched.error_code:
                raise for_code(fetched.error_code)(f"fetching {self._name} from {offset} on")
        except Exception as error:
            if not getattr(error, "invalid_metadata", False):
                raise
            self.disturbances += 1
            await self._client.refresh()
            await asyncio.sleep(_NEW_LEADER_SECONDS)
            return None
        if fetched.cut_at is not None:
            self._refuse_cut(offset, fetched.cut_at)
        known = fetched.stable_end >= 0
        self._ends = (fetched.stable_end, fetched.high_watermark) if known else (None, None)
        return fetched if fetched.records else None

    async def _ask(self, node: int, offset: int, last_epoch: int) -> Fetched:
        topic, partition = self._partition
        isolation = _ISOLATION[self._isolation_level]
        wait_ms = _READ_WAIT_MS if self._lane is Lane.READ else _WAIT_MS
        topic_id = await self.topic_id()
        if topic_id is not None and self._has_ids:
            by_id = FetchByIdRequest(
                topic_id,
                partition,
                offset,
                last_epoch,
                wait_ms=wait_ms,
                most_bytes=self._fetch_bytes,
                isolation_level=isolation,
            )
            try:
                return fetched_in(await self._client.send(node, by_id, self._lane))
            except (NotImplementedError, IncompatibleBrokerVersion):
                self._has_ids = False
        asked = [(topic, [(partition, offset, self._fetch_bytes)])]
        by_name: Any = FetchRequest(wait_ms, 1, 2 * self._fetch_bytes, isolation, asked)
        response = await self._client.send(node, by_name, self._lane)
        _, code, high_watermark, stable_end, *rest = response.topics[0][1][0]
        aborted = rest[1] if response.API_VERSION >= 11 else rest[-2]
        return Fetched(code, high_watermark, stable_end, aborted or [], bytes(rest[-1]), None)

    async def _ask_topic_id(self) -> UUID | None:
        try:
            node = await self._client.leader_of(self._partition)
        except LeaderNotAvailableError:
            node = await self._client.any_node()
        try:
            return topic_id_in(await self._client.send(node, TopicIdRequest(self._partition.topic)))
        except (NotImplementedError, IncompatibleBrokerVersion):
            self._has_ids = False
            return None

    async def _check_topic_id(self) -> None:
        """RefusedError if the topic has another id than it had; a broker may only not have heard of it yet."""
        found = await self._ask_topic_id()
        if found is None or found == self._topic_id:
            return
        raise RefusedError(
            f"the topic {self._partition.topic!r} was deleted and created again while it was read: its id was "
            f"{self._topic_id} and is {found} now. Nothing was skipped or changed. Commands of the former topic that "
            "were not applied are lost; use another topic prefix, or rebuild with 'waypost replay'"
        )

    def _refuse_cut(self, position: int, end: int) -> NoReturn:
        raise RefusedError(
            f"{self._name} was cut at offset {end} or before, and {position} was to be read next: a broker that lacked "
            "records became its leader. Nothing was skipped or changed. Look for an unclean leader election; rebuild "
            "with 'waypost replay' if the partition stays refused"
        )

    async def _refuse(self, position: int) -> NoReturn:
        start, end = await self.bounds()
        if start <= position <= end:
            # KAFKA-16073: while it moves segments to tiered storage, a broker may deny offsets that it has.
            raise UnavailableError(
                f"a broker said that {self._name} has no offset {position}, and then that it has {start} to {end - 1}: "
                "nothing was skipped, and it is read again"
            )
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


async def topic_bounds(client: ClusterClient, topic: str, partitions: int) -> list[tuple[int, int]]:
    """Return, for each partition of a topic, the offset of its first record and the one behind its last.

    UnavailableError or RefusedError, as for a :class:`PartitionReader`.
    """
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    user = object()
    try:
        async with kafka_errors(f"asking where {topic} begins and ends"):
            await client.use(user)
            return await _bounds(client, wanted, READ_UNCOMMITTED)
    finally:
        await client.release(user)


async def _bounds(
    client: ClusterClient, partitions: Sequence[TopicPartition], isolation: int
) -> list[tuple[int, int]]:
    starts, ends = await asyncio.gather(
        first_offsets(client, partitions), end_offsets(client, partitions, isolation)
    )
    return [(starts[partition], ends[partition]) for partition in partitions]
