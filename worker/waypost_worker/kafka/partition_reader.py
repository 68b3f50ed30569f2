"""Reading one partition without a group: its ends, a range of it, or record after record.

This module decides what errors of fetches mean, and when a log is refused; ``shared_fetch`` fetches several partitions
together.

A reader stays with one log. From Kafka 3.1 on, it requests records by the topic's id and says which leader wrote its
last record, so a different topic of the same name or a truncated log is answered with an error. Older brokers are asked
by name; there, the reader only counts events that may announce such a change (``disturbances``).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
)

from waypost.kafka.log_offsets import END, FIRST, ISOLATION, READ_COMMITTED, READ_UNCOMMITTED
from waypost.kafka.record_batches import end_of
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.connection import kafka_errors
from waypost_worker.kafka.fetch_by_id import NO_EPOCH
from waypost_worker.kafka.fetch_rounds import FETCH_BYTES, Feed, LogCutError, UnknownTopicIdError
from waypost_worker.kafka.list_offsets import offsets_at
from waypost_worker.kafka.record_buffer import RecordBuffer
from waypost_worker.kafka.shared_fetch import FetchKind, shared_fetch
from waypost_worker.kafka.topic_ids import TopicIds
from waypost_worker.partition.ports import ReadProgress, RefusedError, UnavailableError

_PIECE: Final = 5000
# A piece of nothing but transaction markers and aborted records comes as nothing: do not wait for more.
_PIECE_WAIT_MS: Final = 50


class PartitionReader:
    """Reads one partition, connected at the first call. It never resets its position by itself.

    ``fetch_bytes`` is the most that one fetch brings. ``topic_id`` is the id of the topic to read; if None, the topic
    keeps the id that it has at first. A reader that ``is_live`` waits for records to come.
    """

    def __init__(
        self,
        client: ClusterClient,
        partition: TopicPartition,
        isolation_level: str,
        fetch_bytes: int = FETCH_BYTES,
        topic_id: UUID | None = None,
        *,
        is_live: bool = False,
    ) -> None:
        self._client = client
        self._partition = partition
        self._name = f"{partition.topic}/{partition.partition}"
        self._isolation = ISOLATION[isolation_level]
        self._topic_id = topic_id
        self._has_ids = True  # until a broker turns out to be too old for them
        self._fetches = shared_fetch(client, FetchKind(is_live, self._isolation))
        self._feed = Feed(partition, fetch_bytes)
        committed = self._isolation == READ_COMMITTED
        self._buffer = RecordBuffer(self._name, self._feed.take, self._opened, committed=committed)
        self._stretch_end: int | None = None
        self._read_epoch = NO_EPOCH

    @property
    def progress(self) -> ReadProgress:
        """The position of :meth:`get`, and the ends of the log in the last fetch."""
        return ReadProgress(self._buffer.position, *self._feed.ends)

    @property
    def disturbances(self) -> int:
        """Return how many answers and broken connections may mean that the log has a new leader or is a different
        log.
        """
        return self._feed.disturbances

    @property
    def read_epoch(self) -> int:
        """The leader epoch of the last record of the stretch that :meth:`read` returned, or -1."""
        return self._read_epoch

    async def partitions(self) -> int:
        """Return how many partitions the topic has. UnavailableError if it does not exist."""
        topic = self._partition.topic
        async with self._asking(f"asking for the partitions of {topic}"):
            found = await self._client.partitions_of(topic)
        if not found:
            raise UnavailableError(
                f"the topic {topic!r} does not exist yet: create it with 'waypost topics create'"
            )
        return found

    async def bounds(self) -> tuple[int, int]:
        """Return the offset of the first record and the one behind the last that this reader may see."""
        async with self._asking(f"asking where {self._name} begins and ends"):
            (bounds,) = await _bounds(self._client, [self._partition], self._isolation)
        return bounds

    async def offset_at(self, milliseconds: int) -> int | None:
        """Return the offset of the first record with this timestamp or a later one; None if there is none."""
        async with self._asking(f"asking for a time in {self._name}"):
            found = await offsets_at(self._client, {self._partition: milliseconds}, self._isolation)
        return None if found[self._partition] < 0 else found[self._partition]

    async def topic_id(self) -> UUID | None:
        """Return the id of the topic that is read; None if brokers are too old to tell, or if there is no such topic
        yet.
        """
        if self._topic_id is None and self._has_ids:
            async with self._asking(f"asking for the id of {self._partition.topic}"):
                self._topic_id = await self._ask_topic_id()
        return self._topic_id

    async def seek(self, offset: int, last_epoch: int = NO_EPOCH) -> None:
        """Continue from ``offset``, which the next :meth:`get` checks first.

        ``last_epoch`` is the leader epoch of the record before it, if that is known.
        """
        self._buffer.move(offset)
        self._feed.move(offset, last_epoch)

    async def get(self, wait_ms: int, most: int) -> list[Any]:
        """Return the next records, at most ``most``; none if none came.

        Raises:
            RefusedError: The position is not in the log, the log has a hole there, or it is another log.
        """
        async with kafka_errors(f"fetching {self._name}"):
            found = await self._taken(most)
            if not found:
                await self._client.use(self)
                self._feed.topic_id = await self.topic_id()
                await self._fetches.wait(self._feed, wait_ms / 1000)
                found = await self._taken(most)
            self._fetches.look_ahead(self._feed)
            return found

    async def _taken(self, most: int) -> list[Any]:
        """Return records that are here, or raise what is wrong behind them."""
        try:
            found = await self._buffer.take(most)
            if not found:
                self._feed.raise_fault()
        except OffsetOutOfRangeError:
            await self._refuse(self._buffer.position)
        except UnknownTopicIdError:
            await self._check_topic_id()
            self._fetches.disturb(self._feed)
            return []
        except LogCutError as error:
            self._refuse_cut(error.position, error.end)
        except (RefusedError, CorruptRecordException):
            await self.seek(self._buffer.position)
            raise
        return found

    async def read(self, first: int, end: int) -> AsyncGenerator[list[Any], None]:
        """The records from ``first`` up to but without ``end``, in pieces; gaps are passed over.

        RefusedError if ``first`` is not in the log; UnavailableError if nothing comes for request_timeout.
        """
        if first >= end:
            return
        await self.seek(first)
        self._feed.stop = self._stretch_end = end
        self._read_epoch = NO_EPOCH
        seconds = self._client.connection.request_timeout
        loop = asyncio.get_running_loop()
        position, moved_at = first, loop.time()
        while position < end:
            records = await self.get(_PIECE_WAIT_MS, _PIECE)
            before, position = position, self._buffer.position
            if wanted := [record for record in records if record.offset < end]:
                yield wanted
            if position > before:
                moved_at = loop.time()
            elif loop.time() - moved_at > seconds:
                raise UnavailableError(
                    f"Kafka returned no records of {self._name} after {position} for {seconds:.0f} s, although "
                    f"the log continues to {end}"
                )

    async def close(self) -> None:
        """Give up the connections; another call would connect again. Never raises."""
        self._fetches.leave(self._feed)
        await self.seek(self._buffer.position)
        await self._client.release(self)

    @asynccontextmanager
    async def _asking(self, doing: str) -> AsyncIterator[None]:
        """Raise UnavailableError or RefusedError for errors while ``doing`` something, including time-outs."""
        async with kafka_errors(doing):
            async with asyncio.timeout(self._client.connection.start_timeout):
                await self._client.use(self)
                yield

    def _opened(self, raw: bytes) -> None:
        """Look at what was fetched, before it is decoded."""
        if self._stretch_end is not None:
            _, epoch = end_of(raw, self._stretch_end)
            self._read_epoch = max(self._read_epoch, epoch)

    async def _ask_topic_id(self) -> UUID | None:
        try:
            node = await self._client.leader_of(self._partition)
        except LeaderNotAvailableError:
            node = await self._client.any_node()
        try:
            return await self._client.shared(TopicIds).ask(self._partition.topic, node)
        except (NotImplementedError, IncompatibleBrokerVersion):
            self._has_ids = False
            return None

    async def _check_topic_id(self) -> None:
        """Raise RefusedError if the topic has a different id than before; a broker may just not know of it yet."""
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
            f"{self._name} was truncated at offset {end} or before, and {position} is the next offset to "
            "read: a broker that lacked records became its leader. Nothing was skipped or changed. Look for "
            "an unclean leader election; rebuild "
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
            f"{self._name} has offsets {start} to {end - 1}, and {position} is the next offset to read: "
            "retention removed it, or the topic was recreated or truncated. Nothing was skipped or changed; "
            "use the right "
            "cluster, or rebuild with 'waypost replay'"
        )


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
        offsets_at(client, dict.fromkeys(partitions, FIRST), READ_UNCOMMITTED),
        offsets_at(client, dict.fromkeys(partitions, END), isolation),
    )
    return [(starts[partition], ends[partition]) for partition in partitions]
