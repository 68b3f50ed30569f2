"""Recovery commands read a log in pieces, whatever Kafka answers and however late."""

from types import SimpleNamespace
from typing import Any

from waypost_worker.partition.stretches import stretches

LATE: list[Any] = []


class Log:
    """A log with a record at each of these offsets. Some fetches bring nothing; ``asked`` are its stretches."""

    def __init__(self, offsets: range, answers: list[list[Any] | None]) -> None:
        self._records = [SimpleNamespace(offset=offset) for offset in offsets]
        self._answers = answers
        self._position = 0
        self.asked: list[tuple[int, int]] = []

    async def seek(self, offset: int) -> None:
        self._position = offset

    async def fetch(self, most: int) -> list[Any]:
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            return answer
        found = [record for record in self._records if record.offset >= self._position][:most]
        self._position = found[-1].offset + 1 if found else self._position
        return found

    async def read(self, first: int, end: int) -> list[Any]:
        self.asked.append((first, end))
        return [record for record in self._records if first <= record.offset < end]


async def offsets_of(log: Any, first: int, end: int) -> list[int]:
    return [record.offset async for records in stretches(log, first, end) for record in records]


async def test_a_fetch_that_is_late_does_not_bring_the_rest_of_the_log_into_memory() -> None:
    log = Log(range(100_000), [None, LATE, None, LATE, LATE])
    assert await offsets_of(log, 0, 100_000) == list(range(100_000))
    assert log.asked
    assert max(end - first for first, end in log.asked) <= 5000


async def test_a_log_that_ends_with_markers_ends() -> None:
    log = Log(range(10), [])
    assert await offsets_of(log, 0, 20_000) == list(range(10))
    assert log.asked[-1][1] == 20_000


async def test_records_behind_many_markers_are_read() -> None:
    log = Log(range(20_000, 20_003), [LATE] * 3)
    assert await offsets_of(log, 0, 20_003) == [20_000, 20_001, 20_002]
