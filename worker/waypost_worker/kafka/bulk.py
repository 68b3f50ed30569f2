"""Reading much of one partition: large fetches, one ahead of what is worked on, records as the decoder leaves them.

Owns how a fetch is asked for and what its errors mean. The client's own consumer wraps each record in an object of
eleven fields and fetches only once everything was taken; for millions of records that is a third of the work.

Stands on internals of aiokafka's reader, as ``waypost.odd_records`` does; the conformance suite holds them.
"""

import asyncio
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import LeaderNotAvailableError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from waypost.odd_records import ODD, read_oddly
from waypost_worker.kafka.connection import Connection, kafka_errors
from waypost_worker.kafka.reading import FETCH_BYTES, PartitionReader

_WAIT_MS: Final = 500
# A smaller fetch ended where the log does: one ahead would wait there, and come with the next record alone, while what
# follows that one waits for a whole batch more. One on demand brings all that is there by then.
_FULL_BYTES: Final = FETCH_BYTES // 2
_NEW_LEADER_SECONDS: Final = 0.1
_ISOLATION: Final = {"read_uncommitted": 0, "read_committed": 1}


class _Records(PartitionRecords):
    """The records of a fetch, less the aborted ones, as they come out of the decoder."""

    size = 0  # in bytes, of all that was fetched

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record


class BulkReader(PartitionReader):
    """A :class:`PartitionReader` that reads on and on, for an owner or a replay. At most two fetches are in memory."""

    def __init__(self, connection: Connection, partition: TopicPartition, isolation_level: str) -> None:
        super().__init__(connection, partition, isolation_level)
        self._isolation = _ISOLATION[isolation_level]
        self._position = 0
        self._records: list[Any] = []
        self._behind = 0  # where to go on once these records are taken
        self._ahead: asyncio.Task[Any] | None = None

    async def seek(self, offset: int) -> None:
        """Go on from ``offset``, which is first looked for at the next :meth:`get`."""
        await self._started()
        self._forget()
        self._position = offset

    async def position(self) -> int:
        """The offset to be read next."""
        return self._position

    async def get(self, wait_ms: int, most: int) -> list[Any]:
        """As that of a :class:`PartitionReader`."""
        if not self._records:
            async with kafka_errors(f"fetching {self._name}"):
                await self._take(wait_ms / 1000)
        taken, self._records = self._records[:most], self._records[most:]
        if self._records:
            self._position = taken[-1].offset + 1
        else:
            self._position = max(self._position, self._behind)
        return taken

    async def close(self) -> None:
        """Give up the connections; another call would connect again. Never raises."""
        self._forget()
        await super().close()

    def _forget(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            # What it would raise concerns nobody any more.
            ahead.add_done_callback(lambda task: task.cancelled() or task.exception())
            ahead.cancel()
        self._records, self._behind = [], 0

    async def _take(self, seconds: float) -> None:
        """Fill ``_records`` with what the fetch under way brings, if it does so in time."""
        consumer = await self._started()
        fetch = self._ahead or asyncio.ensure_future(self._fetch(consumer._client, self._position))
        self._ahead = fetch
        done, _ = await asyncio.wait({fetch}, timeout=seconds)
        if not done:
            return
        self._ahead = None
        try:
            records = fetch.result()
        except OffsetOutOfRangeError:
            await self._refuse(self._position)
        if records is None:
            return
        try:
            self._records, self._behind = list(records), records.next_fetch_offset
        except ODD:
            self._records, self._behind = await read_oddly(
                consumer,
                self._partition,
                self._isolation_level,
                self._position,
                self._connection.request_timeout,
            )
        if records.size > _FULL_BYTES and self._behind > self._position:
            self._ahead = asyncio.ensure_future(self._fetch(consumer._client, self._behind))

    async def _fetch(self, client: Any, offset: int) -> Any:
        """What the leader has from ``offset`` on; None where it waited in vain, or is another one now.

        OffsetOutOfRangeError, and other KafkaErrors that don't pass with a look for the leader.
        """
        topic, partition = self._partition
        try:
            node = client.cluster.leader_for_partition(self._partition)
            if node is None or node < 0:
                raise LeaderNotAvailableError(f"{self._name} has no leader just now")
            asked = [(topic, [(partition, offset, FETCH_BYTES)])]
            request: Any = FetchRequest(_WAIT_MS, 1, 2 * FETCH_BYTES, self._isolation, asked)
            response = await client.send(node, request)
            _, code, _, *rest = response.topics[0][1][0]
            if code:
                raise for_code(code)(f"fetching {self._name} from {offset} on")
        except Exception as error:
            if not getattr(error, "invalid_metadata", False):
                raise
            await client.force_metadata_update()
            await asyncio.sleep(_NEW_LEADER_SECONDS)
            return None
        aborted = rest[2] if response.API_VERSION >= 11 else rest[-2]
        batches = MemoryRecords(bytes(rest[-1]))
        if not batches.has_next():
            return None
        make: Any = _Records
        records = make(self._partition, batches, aborted, offset, None, None, True, self._isolation)
        records.size = batches.size_in_bytes()
        return records
