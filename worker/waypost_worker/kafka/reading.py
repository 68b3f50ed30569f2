"""Reading a stretch of one partition with a consumer that lives no longer than that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.partition.ports import RefusedError, UnavailableError

FETCH_BYTES = 8 * 1024 * 1024


def new_consumer(connection: Connection, isolation_level: str) -> AIOKafkaConsumer:
    """A consumer without a group that never resets its position by itself."""
    return AIOKafkaConsumer(
        **connection.options(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation_level,
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_bytes=2 * FETCH_BYTES,
        fetch_max_wait_ms=500,
        fetch_min_bytes=1,
    )


@asynccontextmanager
async def consumer_at(
    connection: Connection, partition: TopicPartition, isolation_level: str
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer assigned to one partition."""
    consumer = new_consumer(connection, isolation_level)
    try:
        async with kafka_errors("connecting a consumer"):
            await asyncio.wait_for(consumer.start(), 2 * connection.request_timeout)
        consumer.assign([partition])
        yield consumer
    finally:
        await quietly(consumer.stop(), 1.0)


async def read_range(
    connection: Connection, partition: TopicPartition, isolation_level: str, first: int, end: int
) -> AsyncIterator[list[Any]]:
    """The records from ``first`` up to but without ``end``, in pieces. Gaps are passed over.

    RefusedError if ``first`` is not in the log; UnavailableError if nothing comes for too long.
    """
    if first >= end:
        return
    async with consumer_at(connection, partition, isolation_level) as consumer:
        consumer.seek(partition, first)
        while True:
            async with kafka_errors(f"reading {partition.topic}/{partition.partition}"):
                try:
                    found = await asyncio.wait_for(
                        consumer.getmany(
                            partition, timeout_ms=int(connection.request_timeout * 1000), max_records=5000
                        ),
                        2 * connection.request_timeout,
                    )
                except OffsetOutOfRangeError:
                    raise RefusedError(
                        f"{partition.topic}/{partition.partition} does not hold offset {first}: retention "
                        "removed it, or the topic was recreated; nothing was changed"
                    ) from None
                position = await consumer.position(partition)
            records = [record for record in found.get(partition, []) if record.offset < end]
            if records:
                yield records
            if position >= end:
                return
            if not found:
                raise UnavailableError(
                    f"Kafka gave nothing of {partition.topic}/{partition.partition} from {position} on for "
                    f"{connection.request_timeout:.0f} s, though the log goes on to {end}"
                )
