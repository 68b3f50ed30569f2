"""The ResultsLog port: one partition of the results topic."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from aiokafka import TopicPartition
from typing_extensions import override

from waypost.wire.topics import Topics
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.fenced_producer import FencedProducer, claim_epoch
from waypost_worker.kafka.result_origins import OriginReader
from waypost_worker.partition.ports import Fence, FetchedResult, ResultRecord, ResultsLog


class KafkaResultsLog(ResultsLog):
    """One partition of the results topic, for one term of its owner."""

    def __init__(self, client: ClusterClient, topics: Topics, partition: int) -> None:
        self._client = client
        self._transactional_id = topics.transactional_id(partition)
        self._partition = TopicPartition(topics.results, partition)
        self._producer: FencedProducer | None = None
        self._reader = OriginReader(client, self._partition, "read_uncommitted")

    @override
    async def claim(self) -> Fence:
        # From here on, so that the connections outlast the claim.
        await self._client.use(self)
        fence = await claim_epoch(self._client, self._transactional_id)
        producer = FencedProducer(self._client, *self._partition, fence)
        former, self._producer = self._producer, producer
        if former is not None:
            await former.close()
        await producer.start()
        return fence

    @override
    async def append(self, records: Sequence[ResultRecord]) -> int:
        if self._producer is None:
            raise AssertionError("append before claim")
        return await self._producer.append(records)

    @override
    async def bounds(self) -> tuple[int, int]:
        return await self._reader.bounds()

    @override
    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        async with aclosing(self._reader.read(first, end)) as pieces:
            async for records in pieces:
                yield records
        # An owner reads once, when it acquires: let nothing be fetched ahead that nobody wants.
        await self._reader.close()

    @override
    def producer_of(self, record: FetchedResult) -> int:
        return self._reader.producer_of(record.offset)

    @property
    @override
    def broker_time(self) -> float | None:
        return None if self._producer is None else self._producer.broker_time

    @property
    @override
    def unanswered_append_seconds(self) -> float:
        # No part of an append is sent later than request_timeout after it began (OutgoingBatch). The last part sent may
        # still be in a socket or in the broker's queue, for which the same time is allowed again. After that long
        # without an answer, the connection is cut off with everything it holds (ClusterConnections).
        return 2 * self._client.connection.request_timeout

    @override
    async def close(self) -> None:
        await self._reader.close()
        if self._producer is not None:
            await self._producer.close()
        await self._client.release(self)
