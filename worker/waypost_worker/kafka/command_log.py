"""The CommandLog port: one partition of the command topic.

No consumer group is involved, so a rebalance never disturbs a running owner, and replacing a stuck log concerns one
partition only. Aborted transactions of agents are never seen (read_committed).
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import TopicPartition
from typing_extensions import override

from waypost.wire.envelope import KafkaRecord
from waypost_worker.kafka.client import ClusterClient
from waypost_worker.kafka.fetch_by_id import NO_EPOCH
from waypost_worker.kafka.fetch_rounds import FETCH_BYTES
from waypost_worker.kafka.partition_reader import PartitionReader
from waypost_worker.partition.ports import CommandLog, ReadProgress

_ISOLATION: Final = "read_committed"
# An owner without commands wakes this often. Of 96 owners, each wake-up costs as much as a fetch.
_FETCH_WAIT_MS: Final = 2000
# To look at single records, the megabytes that follow them are not needed.
_FEW: Final = 10
_FEW_FETCH_BYTES: Final = 64 * 1024


class KafkaCommandLog(CommandLog):
    """One partition of the command topic, for one term of its owner. Connects at the first call."""

    def __init__(self, client: ClusterClient, topic: str, partition: int) -> None:
        self._client = client
        self._partition = TopicPartition(topic, partition)
        self._reader = PartitionReader(client, self._partition, _ISOLATION, is_live=True)
        # For the end of each stretch that was read, the leader epoch that the last record before it was written in.
        self._read_up_to: dict[int, int] = {}

    @property
    @override
    def disturbances(self) -> int:
        return self._reader.disturbances

    @property
    @override
    def progress(self) -> ReadProgress:
        return self._reader.progress

    @override
    async def partitions(self) -> int:
        await self._reader.topic_id()  # from here on, all that is read is of this one topic
        return await self._reader.partitions()

    @override
    async def bounds(self) -> tuple[int, int]:
        return await self._reader.bounds()

    async def offset_at(self, milliseconds: int) -> int | None:
        """The offset of the first record with this timestamp (ms since 1970) or a later one; None if none has."""
        return await self._reader.offset_at(milliseconds)

    @override
    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        # With a separate reader, which also shows whether the first one is stuck.
        fetch_bytes = _FEW_FETCH_BYTES if end - first <= _FEW else FETCH_BYTES
        topic_id = await self._reader.topic_id()
        reader = PartitionReader(self._client, self._partition, _ISOLATION, fetch_bytes, topic_id)
        read: list[KafkaRecord] = []
        try:
            async with aclosing(reader.read(first, end)) as pieces:
                async for records in pieces:
                    read += records
            self._read_up_to[end] = reader.read_epoch
        finally:
            await reader.close()
        return read

    @override
    async def seek(self, offset: int) -> None:
        await self._reader.seek(offset, self._read_up_to.get(offset, NO_EPOCH))

    @override
    async def fetch(self, most: int) -> Sequence[KafkaRecord]:
        return await self._reader.get(_FETCH_WAIT_MS, most)

    @override
    async def close(self) -> None:
        await self._reader.close()
