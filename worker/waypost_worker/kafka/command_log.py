"""The CommandLog port: one partition of the command topic, with a consumer of its own.

No consumer group is involved, so a rebalance never disturbs an owner at work, and starting a stuck consumer
anew concerns one partition only. Aborted transactions of agents are never seen (read_committed).
"""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from waypost.envelope import KafkaRecord
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.reading import get_records, new_consumer, read_range
from waypost_worker.partition.ports import RefusedError, UnavailableError

_FETCH_WAIT_MS = 1000


class KafkaCommandLog:
    """One partition of the command topic, for one term of its owner. Connects at the first call."""

    def __init__(self, connection: Connection, topic: str, partition: int) -> None:
        self._connection = connection
        self._partition = TopicPartition(topic, partition)
        self._consumer: AIOKafkaConsumer | None = None

    async def partitions(self) -> int:
        """See the port."""
        consumer = await self._started()
        found = consumer.partitions_for_topic(self._partition.topic)
        if not found:
            raise UnavailableError(
                f"the topic {self._partition.topic!r} does not exist yet: make it with 'waypost topics create'"
            )
        return len(found)

    async def bounds(self) -> tuple[int, int]:
        """See the port."""
        consumer = await self._started()
        async with kafka_errors("asking for the bounds of the command topic"):
            start = await consumer.beginning_offsets([self._partition])
            end = await consumer.end_offsets([self._partition])
        return start[self._partition], end[self._partition]

    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        """See the port."""
        read: list[KafkaRecord] = []
        async for records in read_range(self._connection, self._partition, "read_committed", first, end):
            read += records
        return read

    async def seek(self, offset: int) -> None:
        """See the port."""
        (await self._started()).seek(self._partition, offset)

    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        """See the port."""
        consumer = await self._started()
        async with kafka_errors("fetching commands"):
            try:
                return await get_records(
                    consumer, self._partition, _FETCH_WAIT_MS, most, self._connection.request_timeout
                )
            except OffsetOutOfRangeError as error:
                raise RefusedError(
                    f"the command topic no longer holds the next offset ({error}): retention removed commands "
                    "before they were applied, or the topic was recreated. Nothing was skipped; the partition "
                    "is looked at again"
                ) from None

    async def close(self) -> None:
        """See the port."""
        if self._consumer is not None:
            await quietly(self._consumer.stop(), 1.0)

    async def _started(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = new_consumer(self._connection, "read_committed")
            try:
                async with kafka_errors("connecting the command consumer"):
                    await asyncio.wait_for(consumer.start(), 2 * self._connection.request_timeout)
                    # start() brings no metadata of a topic that is only assigned.
                    await consumer._client.add_topic(self._partition.topic)
            except BaseException:
                await quietly(consumer.stop(), 1.0)
                raise
            consumer.assign([self._partition])
            self._consumer = consumer
        return self._consumer
