"""A stretch of a command log, piece by piece."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.ports import CommandLog

_PIECE: Final = 5000


async def stretches(log: CommandLog, first: int, end: int) -> AsyncIterator[Sequence[KafkaRecord]]:
    """All records from ``first`` up to but without ``end``, in order, in pieces.

    Moves the log's position. RefusedError if the log does not hold ``first``.
    """
    if first >= end:
        return
    await log.seek(first)
    position = first
    while position < end:
        records = await log.fetch(_PIECE)
        if not records:
            # What is left may be nothing but transaction markers and aborted records.
            if not await log.read(position, end):
                return
            continue
        position = records[-1].offset + 1
        yield records if position <= end else [record for record in records if record.offset < end]
