"""Records of the results topic that no owner wrote, and that an operator accepted: readers pass over exactly these.

An owner's results carry its producer id, and every id that can stand behind the stored results position is known: that
of the partition's row, and those of the fence records behind it. So what another producer wrote answers no command, and
leaving it out neither hides a result that was emitted nor makes one of it. Pure.
"""

import hashlib
from collections.abc import AsyncIterator, Collection, Sequence

from typing_extensions import override

from waypost_worker.partition.ports import Fence, FetchedResult, ForeignRecord, ResultRecord, ResultsLog


def accepted_record(record: FetchedResult) -> ForeignRecord:
    """Return what distinguishes this record from all others, including another one at the same offset."""
    hashed = hashlib.blake2b(b"%d" % record.offset, digest_size=16)
    parts = [record.key, record.value]
    for name, value in record.headers:
        parts += [name.encode(errors="surrogatepass"), value]
    for part in parts:
        hashed.update(b" -" if part is None else b" %d:" % len(part))
        hashed.update(part or b"")
    return ForeignRecord(record.offset, hashed.digest())


def without_foreign(results: ResultsLog, accepted: Collection[ForeignRecord]) -> ResultsLog:
    """Return the log as it reads without the accepted records."""
    return _WithoutForeign(results, accepted) if accepted else results


class _WithoutForeign(ResultsLog):
    def __init__(self, results: ResultsLog, accepted: Collection[ForeignRecord]) -> None:
        self._results = results
        self._accepted = frozenset(accepted)
        self._offsets = frozenset(offset for offset, _ in accepted)

    @override
    async def claim(self) -> Fence:
        return await self._results.claim()

    @override
    async def append(self, records: Sequence[ResultRecord]) -> int:
        return await self._results.append(records)

    @override
    async def bounds(self) -> tuple[int, int]:
        return await self._results.bounds()

    @override
    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        async for records in self._results.read(first, end):
            if left := [record for record in records if not self._is_accepted(record)]:
                yield left

    @override
    def producer_of(self, record: FetchedResult) -> int:
        return self._results.producer_of(record)

    @property
    @override
    def broker_time(self) -> float | None:
        return self._results.broker_time

    @property
    @override
    def unanswered_append_seconds(self) -> float:
        return self._results.unanswered_append_seconds

    @override
    async def close(self) -> None:
        await self._results.close()

    def _is_accepted(self, record: FetchedResult) -> bool:
        return record.offset in self._offsets and accepted_record(record) in self._accepted
