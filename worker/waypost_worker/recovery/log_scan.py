"""The first and the last result in a stretch of the results topic, without reading all of it."""

from typing import Final

from waypost.wire.event_types import EventType
from waypost_worker.partition.acquire import check_answered
from waypost_worker.partition.ports import CommandLog, FetchedResult, ResultsLog
from waypost_worker.partition.tail import command_offset

_ACQUIRED: Final = EventType.ACQUIRED.wire
_FIRST_LOOK: Final = 64


def is_fence(record: FetchedResult) -> bool:
    """Return whether this is a record of a takeover, which answers no command."""
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


async def check_last_answer(log: CommandLog, results: ResultsLog, begin: int) -> None:
    """Raise RefusedError if the last result answers a command from ``begin`` on that the log does not have.

    Records that are missing at the end of a log leave no hole, so a fold would cover fewer commands than were answered.
    """
    last = await last_result(results, *await results.bounds())
    if last is not None and (answered := command_offset(last)) >= begin:
        await check_answered(log, answered, (await log.bounds())[1])
