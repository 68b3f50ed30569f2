"""Results that one owner committed and must emit: appended in order, one append at a time, in parallel with the next
batches.

An append takes as long for one result as for a thousand. Results that are committed while one is under way therefore
wait together and go out with the next, so that a command waits for at most one append before its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.ownership import OwnershipProof, Position
from waypost_worker.partition.ports import ForeignWriterError, ResultRecord, ResultsLog


class ResultEmitter:
    """The appends of one term. Of no use any more after the first that failed.

    ``most_results`` and ``most_bytes`` bound what may wait; ``tell`` is called for each batch that is in the topic,
    with the seconds that its append took.
    """

    def __init__(
        self,
        results: ResultsLog,
        position: Position,
        proof: OwnershipProof,
        tell: Callable[[AppliedBatch, float], None],
        boottime: Callable[[], float],
        most_results: int,
        most_bytes: int,
    ) -> None:
        self._results = results
        self._position = position
        self._proof = proof
        self._tell = tell
        self._boottime = boottime
        self._most_results = most_results
        self._most_bytes = most_bytes
        self._waiting: list[AppliedBatch] = []
        self._waiting_results = self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._taken: asyncio.Future[None] | None = None

    def add(self, batch: AppliedBatch) -> None:
        """Take a committed batch over. Raises what made an earlier append fail."""
        self.check()
        if not batch.results:
            return
        self._waiting.append(batch)
        self._waiting_results += len(batch.results)
        self._waiting_bytes += batch.result_bytes
        if self._task is None:
            self._task = asyncio.create_task(self._append_all())

    async def room(self) -> None:
        """Wait until another batch may wait. Raises what made an append fail."""
        while self._full() and self._task is not None:
            self._taken = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._task, self._taken}, return_when=asyncio.FIRST_COMPLETED)
            self.check()

    async def done(self) -> None:
        """Wait until everything is in the topic. Raises what made an append fail."""
        while self._task is not None:
            await self._task
            self.check()

    def check(self) -> None:
        """Raise what made an append fail, if one did."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None

    async def close(self) -> None:
        """Give up. An append under way may or may not take effect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _full(self) -> bool:
        return self._waiting_results >= self._most_results or self._waiting_bytes >= self._most_bytes

    async def _append_all(self) -> None:
        while self._waiting:
            batches, self._waiting = self._waiting, []
            self._waiting_results = self._waiting_bytes = 0
            if self._taken is not None and not self._taken.done():
                self._taken.set_result(None)
            began = self._boottime()
            await emit(
                self._results,
                [one for batch in batches for one in batch.results],
                self._position,
                self._proof,
            )
            seconds = self._boottime() - began
            for batch in batches:
                self._tell(batch, seconds)


# Results per append while the outbox is finished, by bytes: below the results topic's max.message.bytes.
EMIT_BYTES: Final = 4 * 1024 * 1024


async def emit(
    results: ResultsLog, made: Sequence[tuple[int, ResultRecord]], position: Position, proof: OwnershipProof
) -> None:
    """Append results and move ``position`` on; ForeignWriterError if they land where they should not."""
    for piece in pieces(made):
        proof.check()
        while proof.lapsed:
            await fence_again(results, position, proof)
            proof.check()
        await _append(results, [record for _, record in piece], position)
        position.emitted = piece[-1][0]


async def fence_again(results: ResultsLog, position: Position, proof: OwnershipProof) -> None:
    """Append the fence record again. Raise ForeignWriterError if another owner has appended in the meantime.

    Only an append shows for certain where the topic ends, and no result is duplicated if it is refused.
    """
    with proof.fencing():
        await _append(results, [position.fence_record], position)


async def _append(results: ResultsLog, records: Sequence[ResultRecord], position: Position) -> None:
    base = await results.append(records)
    if base != position.results_offset:
        raise ForeignWriterError(
            f"results landed at offset {base} instead of {position.results_offset}: something else "
            "writes to the results topic, or it was truncated; the partition is read again"
        )
    position.results_offset = base + len(records)


def pieces(made: Sequence[tuple[int, ResultRecord]]) -> list[Sequence[tuple[int, ResultRecord]]]:
    """Cut results into pieces of at most EMIT_BYTES each, by a high estimate; one that is larger is a piece alone."""
    if sum([len(record.value) for _, record in made]) + 600 * len(made) <= EMIT_BYTES:
        return [made] if made else []
    cut = []
    first = size = 0
    for index, (_, record) in enumerate(made):
        weight = len(record.value) + 600
        if size + weight > EMIT_BYTES and index > first:
            cut.append(made[first:index])
            first, size = index, 0
        size += weight
    if first < len(made):
        cut.append(made[first:])
    return cut
