"""Reading results together with the producer that wrote each of them."""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from typing_extensions import override

from waypost.kafka.record_batches import producers_of
from waypost_worker.kafka.fetch_by_id import NO_EPOCH
from waypost_worker.kafka.partition_reader import PartitionReader


class OriginReader(PartitionReader):
    """Reads one partition. Brokers keep the producer id of a batch in its header."""

    # Last offset and producer id of each batch that may hold records of the last call, in order.
    _producers: Sequence[tuple[int, int]] = ()

    async def read_with_producers(self, first: int, end: int) -> AsyncGenerator[list[tuple[Any, int]], None]:
        """Yield the records from ``first`` up to but without ``end`` with their producer ids, -1 for none."""
        async with aclosing(self.read(first, end)) as pieces:
            async for records in pieces:
                yield [(record, self.producer_of(record.offset)) for record in records]

    def producer_of(self, offset: int) -> int:
        """Return the producer id, -1 for none, of a record that the last call returned."""
        return self._producers[bisect_left(self._producers, (offset, -2))][1]

    @override
    async def seek(self, offset: int, last_epoch: int = NO_EPOCH) -> None:
        await super().seek(offset, last_epoch)
        self._producers = ()

    @override
    async def get(self, wait_ms: int, most: int) -> list[Any]:
        # Records that earlier calls returned are not requested again.
        self._producers = self._producers[bisect_left(self._producers, (self.progress.position, -2)) :]
        return await super().get(wait_ms, most)

    @override
    def _opened(self, raw: bytes) -> None:
        super()._opened(raw)
        self._producers = [*self._producers, *producers_of(raw)]
