"""Reading a stretch of one partition with a consumer that lives no longer than that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.odd_records import read_odd_batch
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


async def get_records(
    consumer: AIOKafkaConsumer, partition: TopicPartition, wait_ms: int, most: int, timeout: float
) -> list[Any]:
    """The next records, at most ``most`` (one odd batch may be more); none if none came in time.

    OffsetOutOfRangeError if the position is not in the log.
    """
    try:
        found = await consumer.getmany(partition, timeout_ms=wait_ms, max_records=most)
    except UnicodeDecodeError:
        position = await consumer.position(partition)
        records, behind = await read_odd_batch(consumer, partition, position, timeout)
        consumer.seek(partition, behind)
        return records
    records = found.get(partition, [])
    return records


async def read_range(
    connection: Connection, partition: TopicPartition, isolation_level: str, first: int, end: int
) -> AsyncIterator[list[Any]]:
    """The records from ``first`` up to but without ``end``, in pieces. Gaps are passed over.

    RefusedError if ``first`` is not in the log; UnavailableError if nothing comes for too long.
    """
    if first >= end:
        return
    seconds = connection.request_timeout
    name = f"{partition.topic}/{partition.partition}"
    async with consumer_at(connection, partition, isolation_level) as consumer:
        consumer.seek(partition, first)
        position = first
        while position < end:
            before = position
            async with kafka_errors(f"reading {name}"):
                try:
                    records = await get_records(consumer, partition, int(seconds * 1000), 5000, seconds)
                except OffsetOutOfRangeError:
                    raise RefusedError(
                        f"{name} does not hold offset {position}: retention removed it, or the topic was "
                        "recreated; nothing was changed"
                    ) from None
                position = await consumer.position(partition)
            if wanted := [record for record in records if record.offset < end]:
                yield wanted
            if position == before:
                raise UnavailableError(
                    f"Kafka gave nothing of {name} from {position} on for {seconds:.0f} s, though the log goes "
                    f"on to {end}"
                )
