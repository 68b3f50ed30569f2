"""Fetched records, decoded a few at a time and divided into batches.

A batch of two thousand commands is larger than a core's cache. If it were decoded completely first, each body would
have left the cache when it is decided on and copied into its result, which would make both more expensive. So a piece
is processed completely before the next one is read. The boundaries of pieces do not affect what commands mean.

Nothing blocks the event loop for long, no matter what is in a body: it gets a turn between pieces, and a large body is
decoded in a separate thread. Performs no other I/O.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import accumulate
from math import exp
from threading import Lock
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.batch import Decoded
from waypost_worker.partition.skips import NO_ORDERS, SkipOrders

_PIECE: Final = 64
# A body up to this size is decoded in milliseconds, whatever it holds; a thread costs 0.1 ms.
_PIECE_BYTES: Final = 256 * 1024
# Of all partitions. Decoding 16 MB takes 300 MB for a moment, most of it for simdjson, and threads hardly share a core.
_ONE_AT_A_TIME: Final = Lock()
_RECORD_BYTES: Final = 200  # besides its value
_LONGEST: Final = 0.005
_REMEMBERED: Final = 0.25  # seconds that the rate looks back
# A batch of this size is worth its costs.
_LARGE: Final = 500


class BatchSplitter:
    """The ``records`` of one fetch; true as long as some are left."""

    def __init__(
        self,
        records: Sequence[KafkaRecord],
        partition: int,
        partitions: int,
        most_bytes: int,
        orders: SkipOrders = NO_ORDERS,
    ) -> None:
        self._records = records
        self._partition = partition
        self._partitions = partitions
        self._most_bytes = most_bytes
        self._understand = orders.decode
        self._at = 0
        self._left: list[Decoded] = []

    def __bool__(self) -> bool:
        return bool(self._left) or self._at < len(self._records)

    async def batch(self) -> AsyncGenerator[list[Decoded], None]:
        """Yield the pieces of the next batch, none of them empty: ``most_bytes`` together, at least one record.

        The boundaries of batches never change what commands mean. Process a batch to its end before the next one, or
        put back the rest of it.
        """
        room = self._most_bytes
        since = 0
        while self:
            piece = self._left or await self._decode()
            size, weight = _cut(piece, room)
            if weight > room and room < self._most_bytes:
                self._left = piece  # one record is taken at least, and only the first may be too large
                return
            self._left = piece[size:]
            yield piece[:size]
            room -= weight
            if self._left:
                return
            since += weight
            if since >= _PIECE_BYTES:
                since = 0
                await asyncio.sleep(0)

    def put_back(self, decoded: Sequence[Decoded]) -> None:
        """Take back the last records that :meth:`batch` gave, for the next batch."""
        self._left = [*decoded, *self._left]

    async def _decode(self) -> list[Decoded]:
        piece = self._records[self._at : self._at + _PIECE]
        sizes = [len(record.value or b"") for record in piece]
        if sum(sizes) > _PIECE_BYTES:
            piece = piece[: _fitting(sizes, _PIECE_BYTES)]
        self._at += len(piece)
        if len(piece) == 1 and sizes[0] > _PIECE_BYTES:
            return [await asyncio.to_thread(self._understand_large, piece[0])]
        return [self._understand(record, self._partition, self._partitions) for record in piece]

    def _understand_large(self, record: KafkaRecord) -> Decoded:
        with _ONE_AT_A_TIME:
            return self._understand(record, self._partition, self._partitions)


def in_parts(records: Sequence[KafkaRecord], most: int | None) -> list[Sequence[KafkaRecord]]:
    """Cut records into parts of at most ``most``: a fetch may bring a few more than were asked for."""
    if most is None:
        return [records]
    return [records[first : first + most] for first in range(0, len(records), most)]


def _cut(decoded: Sequence[Decoded], most_bytes: int) -> tuple[int, int]:
    """Return how many of these records fit into ``most_bytes``, at least one, and how many bytes they are."""
    weights = [len(one.record.value or b"") + _RECORD_BYTES for one in decoded]
    total = sum(weights)
    if total <= most_bytes:  # nearly always
        return len(decoded), total
    fitting = _fitting(weights, most_bytes)
    return fitting, sum(weights[:fitting])


def _fitting(weights: Sequence[int], most: int) -> int:
    return next(index for index, total in enumerate(accumulate(weights)) if total > most) or 1


class AdaptiveLinger:
    """When to let commands gather before the next batch, for one term. Seconds of a clock that never goes back.

    A batch has fixed costs: a fetch, a commit and an append, each of which wakes up another process, several
    milliseconds of CPU time together. A thousand commands per second, one or two at a time, would keep two cores busy
    with that alone, and would then wait for each other. If commands accumulate for as long as the last batch took, each
    waits a little longer at first, and all wait less in total. If commands are rarer than that, there is nothing to
    gain, and nobody waits.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._rate = 0.0
        self._pause = 0.0

    def took(self, commands: int, fetched_at: float, seconds: float) -> None:
        """Note that a fetch was applied and committed in this many ``seconds``."""
        past = max(0.0, fetched_at - self._last)
        self._last = max(fetched_at, self._last)
        self._rate = self._rate * exp(-past / _REMEMBERED) + commands / _REMEMBERED
        gathering = min(seconds, _LONGEST)
        worth_it = commands < _LARGE and self._rate * gathering >= 1
        self._pause = gathering if worth_it else 0.0

    @property
    def pause(self) -> float:
        """Return how long to wait before the next fetch: 0 unless at least one more command is expected by then."""
        return self._pause
