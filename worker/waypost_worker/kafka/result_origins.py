"""Reading results together with the producer that wrote each of them."""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from typing_extensions import override

from waypost.kafka.record_batches import producers_of
from waypost_worker.kafka.partition_reader import PartitionReader


class OriginReader(PartitionReader):
    """Reads one partition. Brokers keep the producer id of a batch in its header."""

    _producers: Sequence[tuple[int, int]] = ()  # last offset and producer id of each batch of the last fetch

    async def read_with_producers(self, first: int, end: int) -> AsyncGenerator[list[tuple[Any, int]], None]:
        """Yield the records from ``first`` up to but without ``end`` with their producer ids, -1 for none."""
        async with aclosing(self.read(first, end)) as pieces:
            async for records in pieces:
                yield [(record, self.producer_of(record.offset)) for record in records]

    def producer_of(self, offset: int) -> int:
        """Return the producer id, -1 for none, of a record that the last call returned."""
        return self._producers[bisect_left(self._producers, (offset, -2))][1]

    @override
    def _open(self, raw: bytes, aborted: Sequence[tuple[int, int]] | None) -> None:
        super()._open(raw, aborted)
        self._producers = list(producers_of(raw))
