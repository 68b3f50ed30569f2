"""A stretch of the command log, read from one end to the other."""

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
            position = await passed_over(log, position, end)
            continue
        position = records[-1].offset + 1
        yield records if position <= end else [record for record in records if record.offset < end]


async def passed_over(log: CommandLog, position: int, end: int) -> int:
    """Return an offset from ``position`` on before which the log has no records; ``end`` if it has none at all.

    For a fetch that brought nothing: Kafka did not answer in time, or what is left is nothing but transaction markers
    and aborted records. Reads a piece at a time, since all of it may not fit into memory.
    """
    while position < end:
        behind = min(end, position + _PIECE)
        if await log.read(position, behind):
            break
        position = behind
    return position
