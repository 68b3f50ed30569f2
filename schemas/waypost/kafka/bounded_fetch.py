"""Decode what a fetch brought, within limits on records, bytes and time.

aiokafka's own decoder raises at batches that brokers accept and nobody can read, again at every try, and unpacks a
kilobyte to gigabytes. Here offsets without a readable record are passed over, and other tasks get turns.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from waypost.kafka.record_batches import Damaged, Records, Unreadable, decode_batches

log = logging.getLogger("waypost")
# The most that one fetch of a partition returns. The rest is fetched later.
_MOST_RECORDS: Final = 20_000
_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_SECONDS: Final = 0.5
# An empty header takes this much memory, and two bytes in the log.
_HEADER_BYTES: Final = 64
# Decoding lets other tasks run this often, in seconds.
_TURN: Final = 0.02
_DAMAGED_SECONDS: Final = 1.0
_ABORTED_SINCE: Final = 4
_REPLICA_SINCE: Final = 11


class Fetched(NamedTuple):
    """A broker's answer for one partition. ``aborted`` are transactions, by producer id and first offset.

    ``replica`` is the broker to fetch from, or -1 for the one that answered.
    """

    partition: TopicPartition
    error_code: int
    raw: bytes
    aborted: Sequence[tuple[int, int]]
    replica: int


class Decoded(NamedTuple):
    """Records that can be read, their size in bytes, and the offset to fetch next."""

    records: list[Any]
    size: int
    behind: int


def fetched_in(response: Any) -> Iterator[Fetched]:
    """Yield the parts of aiokafka's response to a fetch."""
    has_replica = response.API_VERSION >= _REPLICA_SINCE
    for topic, partitions in response.topics:
        for fields in partitions:
            aborted = () if response.API_VERSION < _ABORTED_SINCE else fields[5 if has_replica else -2]
            yield Fetched(
                TopicPartition(topic, fields[0]),
                fields[1],
                bytes(fields[-1] or b""),
                aborted or (),
                fields[-2] if has_replica else -1,
            )


async def decode_fetched(fetched: Fetched, offset: int, *, committed: bool) -> Decoded:
    """Decode from an offset on. If ``committed``, leave out records of transactions that were aborted."""
    topic, number = fetched.partition
    clock = asyncio.get_running_loop().time
    turn = clock() + _TURN
    end = clock() + _MOST_SECONDS
    records: list[Any] = []
    size, behind = 0, offset
    for piece in decode_batches(fetched.raw, offset, aborted=fetched.aborted if committed else None):
        match piece:
            case Records():
                for record in piece.records:
                    key, value, headers = record.key, record.value, tuple(record.headers)
                    size += len(key or b"") + len(value or b"")
                    for name, content in headers:
                        size += _HEADER_BYTES + len(name) + len(content or b"")
                    records.append(
                        ConsumerRecord(
                            topic,
                            number,
                            record.offset,
                            record.timestamp,
                            record.timestamp_type,
                            key,
                            value,
                            None,
                            -1 if key is None else len(key),
                            -1 if value is None else len(value),
                            headers,
                        )
                    )
            case Unreadable():
                place = f"{topic}/{number}, offsets {piece.first} to {piece.last}"
                log.warning("%s can't be read: %s They are ignored", place, piece.message)
            case Damaged():
                if not records:
                    log.warning("%s/%s: %s It is fetched again", topic, number, piece.message)
                    await asyncio.sleep(_DAMAGED_SECONDS)
                break
        behind = piece.last + 1
        now = clock()
        if len(records) >= _MOST_RECORDS or size >= _MOST_BYTES or now > end:
            break
        if now > turn:
            await asyncio.sleep(0)
            turn = clock() + _TURN
    return Decoded(records, size, behind)
