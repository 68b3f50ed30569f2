"""The first and the last result in a stretch of the results topic, without reading all of it."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import CommandLog, FetchedResult, ResultsLog

_ACQUIRED: Final = EventType.ACQUIRED.wire
_FIRST_LOOK: Final = 64


def is_fence(record: FetchedResult) -> bool:
    """Whether this is a record of a takeover, which answers no command."""
    return record.key is None and dict(record.headers).get("ce_type") == _ACQUIRED


async def first_result(results: ResultsLog, start: int, end: int) -> FetchedResult | None:
    """The first between ``start`` and ``end``, or None."""
    step = _FIRST_LOOK
    while start < end:
        if found := await _between(results, start, min(end, start + step)):
            return found[0]
        start, step = start + step, step * 8
    return None


async def last_result(results: ResultsLog, start: int, end: int) -> FetchedResult | None:
    """The last between ``start`` and ``end``, or None."""
    step = _FIRST_LOOK
    while end > start:
        if found := await _between(results, max(start, end - step), end):
            return found[-1]
        end, step = end - step, step * 8
    return None


async def _between(results: ResultsLog, first: int, end: int) -> list[FetchedResult]:
    return [record async for piece in results.read(first, end) for record in piece if not is_fence(record)]


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
