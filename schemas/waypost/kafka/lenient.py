"""Records that aiokafka cannot read: a header name that is not UTF-8 makes it raise, again at every try.

Java clients can't produce such a record, librdkafka ones can. It must not stop a partition, so what is there
is fetched once more and read with the names' odd bytes shown as escapes (``\\xff``).

Stands on internals of aiokafka's reader; a test with a real record of that kind holds them.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final, SupportsIndex

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import CorruptRecordException, KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy

log = logging.getLogger("waypost")
# At least one batch comes whole, however large it is.
_FETCH_BYTES: Final = 1024 * 1024
_BATCH_OVERHEAD: Final = 12
ODD: Final = (UnicodeDecodeError, CorruptRecordException)
"""What aiokafka raises at such a record."""
_ISOLATION: Final = {"read_uncommitted": 0, "read_committed": 1}


class _Lenient(bytearray):
    """Bytes whose slices decode odd UTF-8 to escapes instead of raising."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Text, in which bytes that are not UTF-8 stand as escapes."""
        return super().decode(encoding, "backslashreplace")


class _LenientBatches:
    """The whole batches in a fetched piece of a log, as aiokafka's PartitionRecords takes them."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def _size(self) -> int:
        return _BATCH_OVERHEAD + int.from_bytes(self._raw[8:_BATCH_OVERHEAD], "big")

    def has_next(self) -> bool:
        """Whether another batch is there to its end."""
        return len(self._raw) > _BATCH_OVERHEAD and len(self._raw) >= self._size()

    def next_batch(self) -> Any:
        """The next batch. CorruptRecordException if its checksum is wrong."""
        size = self._size()
        batch: Any = _DefaultRecordBatchPy(self._raw[:size])
        self._raw = self._raw[size:]
        if not batch.validate_crc():
            raise CorruptRecordException(f"the batch at offset {batch.base_offset} has a wrong checksum")
        batch._maybe_uncompress()
        batch._buffer = _Lenient(batch._buffer)
        return batch


async def fetch_leniently(
    consumer: AIOKafkaConsumer, partition: TopicPartition, isolation_level: str, offset: int, timeout: float
) -> tuple[list[Any], int]:
    """The next records from ``offset`` on, and the offset to go on from. Aborted ones are left out.

    KafkaError or TimeoutError if Kafka does not give them now.
    """
    client: Any = consumer._client
    node = client.cluster.leader_for_partition(partition)
    if node is None or node < 0:
        raise LeaderNotAvailableError(f"{partition.topic}/{partition.partition} has no leader just now")
    isolation = _ISOLATION[isolation_level]
    asked = [(partition.topic, [(partition.partition, offset, _FETCH_BYTES)])]
    request: Any = FetchRequest(500, 1, _FETCH_BYTES, isolation, asked, rack_id="")
    async with asyncio.timeout(timeout):
        response = await client.send(node, request)
    _, code, _, *rest = response.topics[0][1][0]
    if code:
        raise for_code(code)("fetching a batch")
    aborted = rest[2] if response.API_VERSION >= 11 else rest[-2]
    batches = _LenientBatches(bytes(rest[-1]))
    records = PartitionRecords(partition, batches, aborted, offset, None, None, False, isolation)
    return list(records), records.next_fetch_offset


async def read_each(
    consumer: AIOKafkaConsumer,
    positions: Mapping[TopicPartition, int],
    isolation_level: str,
    most: int,
    timeout: float,
) -> dict[TopicPartition, list[Any]]:
    """What there is now from ``positions`` on, one partition after the other, odd records too.

    For a consumer whose reading of all at once has raised one of ``ODD``: what it had taken of other partitions
    by then is lost in it, so each is read from its position again.
    """
    found: dict[TopicPartition, list[Any]] = {}
    for partition, position in positions.items():
        consumer.seek(partition, position)
        try:
            try:
                records = (await consumer.getmany(partition, timeout_ms=500, max_records=most)).get(
                    partition, []
                )
            except ODD:
                records, behind = await fetch_leniently(
                    consumer, partition, isolation_level, position, timeout
                )
                consumer.seek(partition, behind)
        except (KafkaError, TimeoutError) as error:
            log.warning("%s can't be read just now: %r", partition, error)
            records = []
        if records:
            found[partition] = records
    return found
