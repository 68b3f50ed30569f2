"""Records that aiokafka cannot read: a header name that is not UTF-8 makes it raise, again at every try.

Java clients can't produce such a record, librdkafka ones can. It must not stop a partition, so the batch that
holds it is fetched once more and read with the names' odd bytes shown as escapes (``\\xff``).
"""

import asyncio
from typing import Any, Final, SupportsIndex

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.structs import ConsumerRecord

from waypost_worker.partition.ports import UnavailableError

_FETCH_BYTES: Final = 32 * 1024 * 1024
_READ_COMMITTED: Final = 1


class _Lenient(bytearray):
    """Bytes whose slices decode odd UTF-8 to escapes instead of raising."""

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        found = super().__getitem__(at)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Text, in which bytes that are not UTF-8 stand as escapes."""
        return super().decode(encoding, "backslashreplace")


async def read_odd_batch(
    consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int, timeout: float
) -> tuple[list[Any], int]:
    """The records from ``offset`` on of the batch that holds it, and the offset behind that batch."""
    client: Any = consumer._client
    node = client.cluster.leader_for_partition(partition)
    if node is None or node < 0:
        raise UnavailableError(f"{partition.topic}/{partition.partition} has no leader just now")
    asked = [(partition.topic, [(partition.partition, offset, _FETCH_BYTES)])]
    request: Any = FetchRequest(500, 1, _FETCH_BYTES, _READ_COMMITTED, asked, rack_id="")
    response = await asyncio.wait_for(client.send(node, request), timeout)
    _, code, _, *rest = response.topics[0][1][0]
    if code:
        raise UnavailableError(f"Kafka, fetching a batch: {for_code(code).__name__}")
    raw = bytes(rest[-1])
    while len(raw) >= 12:
        size = 12 + int.from_bytes(raw[8:12], "big")
        batch: Any = _DefaultRecordBatchPy(raw[:size])
        if batch.next_offset > offset and not batch.is_control_batch:
            batch._maybe_uncompress()
            batch._buffer = _Lenient(batch._buffer)
            return [_record(partition, r) for r in batch if r.offset >= offset], batch.next_offset
        raw = raw[size:]
    raise UnavailableError(f"the batch at offset {offset} of {partition.topic} did not come whole")


def _record(partition: TopicPartition, record: Any) -> Any:
    return ConsumerRecord(
        partition.topic,
        partition.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        record.key,
        record.value,
        None,
        -1 if record.key is None else len(record.key),
        -1 if record.value is None else len(record.value),
        tuple(record.headers),
    )
