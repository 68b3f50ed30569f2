"""Batches that Kafka takes and Kafka clients stumble over: header names that are not UTF-8."""

import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c

CRC_AT, CRC_FROM = 17, 21
ODD_NAME = b"\xff\xfedd"


def with_odd_names(raw: bytearray) -> bytearray:
    """A batch whose header names ``odd!`` become bytes that are not UTF-8, as librdkafka lets a client write.

    Kafka takes them: names are bytes to it.
    """
    odd = raw.replace(b"odd!", ODD_NAME)
    struct.pack_into(">I", odd, CRC_AT, calc_crc32c(bytes(odd[CRC_FROM:])))
    return odd


async def send(
    producer: AIOKafkaProducer, topic: str, values: Sequence[bytes], odd: Sequence[int], partition: int = 0
) -> None:
    """One batch; the records at the positions ``odd`` have an odd header name."""
    batch = producer.create_batch()
    for position, value in enumerate(values):
        name = "odd!" if position in odd else "even"
        batch.append(timestamp=None, key=b"key", value=value, headers=[(name, b"1"), ("other", b"2")])
    batch.close()
    build = batch._build
    batch._build = lambda: with_odd_names(build())
    await (await producer.send_batch(batch, topic, partition=partition))
