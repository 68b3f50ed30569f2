"""The time on the brokers, measured by the timestamp that one of them gives a record."""

import asyncio
import time
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from waypost.wire.topics import Topics
from waypost_worker.kafka.connection import Connection, kafka_errors, quietly
from waypost_worker.kafka.topics import create_scratch_topic, delete_topic
from waypost_worker.partition.ports import OwnerError

_LOG_APPEND_TIME: Final = {"message.timestamp.type": "LogAppendTime"}


class ClockReading(NamedTuple):
    """The lead of a clock over this machine's, with an error of up to ``within``; both in seconds."""

    ahead: float
    within: float


async def broker_clock(connection: Connection, topics: Topics) -> ClockReading:
    """Read the clock of the broker that leads a topic made for this, which is removed again.

    UnavailableError or RefusedError if the cluster does not answer or allow it.
    """
    name = f"{topics.prefix}.clock-test.{uuid4().hex[:12]}"
    await create_scratch_topic(connection, name, _LOG_APPEND_TIME)
    try:
        async with kafka_errors("reading a broker's clock"):
            producer = AIOKafkaProducer(**connection.options())
            try:
                async with asyncio.timeout(connection.start_timeout):
                    await producer.start()
                await producer.send_and_wait(name, b"")  # connects, and is not timed
                asked = time.time()
                sent = await producer.send_and_wait(name, b"")
                answered = time.time()
            finally:
                await quietly(producer.stop(), 1.0)
    finally:
        with suppress(OwnerError):
            await delete_topic(connection, name)
    # Kafka cuts the timestamp to whole milliseconds.
    return ClockReading(sent.timestamp / 1000 - (asked + answered) / 2, (answered - asked) / 2 + 0.001)
