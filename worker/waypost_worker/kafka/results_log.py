"""The ResultsLog port: one partition of the results topic."""

from collections.abc import AsyncIterator, Sequence

from aiokafka import TopicPartition

from waypost.topics import Topics
from waypost_worker.kafka.connection import Connection, kafka_errors
from waypost_worker.kafka.fenced import FencedProducer, claim_epoch
from waypost_worker.kafka.reading import consumer_at, read_range
from waypost_worker.partition.ports import Fence, FetchedResult, ResultRecord


class KafkaResultsLog:
    """One partition of the results topic, for one term of its owner."""

    def __init__(self, connection: Connection, topics: Topics, partition: int) -> None:
        self._connection = connection
        self._transactional_id = topics.transactional_id(partition)
        self._partition = TopicPartition(topics.results, partition)
        self._producer: FencedProducer | None = None

    async def claim(self) -> Fence:
        """See the port."""
        fence = await claim_epoch(self._connection, self._transactional_id)
        self._producer = FencedProducer(
            self._connection, self._partition.topic, self._partition.partition, fence
        )
        await self._producer.start()
        return fence

    async def append(self, records: Sequence[ResultRecord]) -> int:
        """See the port."""
        if self._producer is None:
            raise AssertionError("append before claim")
        return await self._producer.append(records)

    async def bounds(self) -> tuple[int, int]:
        """See the port."""
        async with (
            consumer_at(self._connection, self._partition, "read_uncommitted") as consumer,
            kafka_errors("asking for the bounds of the results topic"),
        ):
            start = await consumer.beginning_offsets([self._partition])
            end = await consumer.end_offsets([self._partition])
        return start[self._partition], end[self._partition]

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        """See the port."""
        async for records in read_range(self._connection, self._partition, "read_uncommitted", first, end):
            yield [FetchedResult(r.offset, r.key, r.value, r.headers) for r in records]

    @property
    def unanswered_append_seconds(self) -> float:
        """See the port: the broker gives a produce request up to this long, and the client no longer."""
        return self._connection.request_timeout

    async def close(self) -> None:
        """See the port."""
        if self._producer is not None:
            await self._producer.close()
