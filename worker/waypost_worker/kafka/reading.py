"""Reading one partition without a group: where it begins and ends, a stretch of it, or record after record."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final, NoReturn

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError

from waypost.odd_records import read_oddly
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import RefusedError, UnavailableError

FETCH_BYTES: Final = 8 * 1024 * 1024
_PIECE: Final = 5000
# A piece of nothing but transaction markers and aborted records comes as nothing: do not wait for more.
_PIECE_WAIT_MS: Final = 50
_CLOSE_SECONDS: Final = 1.0


class PartitionReader:
    """A consumer of one partition, connected at the first call. It never resets its position by itself."""

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
        consumer = await self._started()
        # Assigned only here: an assignment without a position would be an error of its own.
        if self._partition not in consumer.assignment():
            consumer.assign([self._partition])
        consumer.seek(self._partition, offset)

    async def position(self) -> int:
        """The offset to be read next."""
        position: int = await (await self._started()).position(self._partition)
        return position

    async def get(self, wait_ms: int, most: int) -> list[Any]:
        """The next records, at most ``most`` (a few more where odd ones are among them); none if none came.

        RefusedError if the position is not in the log.
        """
        consumer = await self._started()
        partition = self._partition
        async with kafka_errors(f"fetching {self._name}"):
            try:
                found = await consumer.getmany(partition, timeout_ms=wait_ms, max_records=most)
            except OffsetOutOfRangeError:
                await self._refuse(await consumer.position(partition))
            except (UnicodeDecodeError, CorruptRecordException):
                position = await consumer.position(partition)
                records, behind = await read_oddly(
                    consumer, partition, self._isolation_level, position, self._connection.request_timeout
                )
                consumer.seek(partition, behind)
                return records
        records = found.get(partition, [])
        return records

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
            before, position = position, await self.position()
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
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await quietly(consumer.stop(), _CLOSE_SECONDS)

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **self._connection.options(),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level=self._isolation_level,
                max_partition_fetch_bytes=self._fetch_bytes,
                fetch_max_bytes=2 * self._fetch_bytes,
                fetch_max_wait_ms=500,
                fetch_min_bytes=1,
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
