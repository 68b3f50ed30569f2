"""Rebuilding one partition of a database from its command log, with the owner's own fold.

Like an owner, it is fenced by the partition's epoch and moves by compare-and-set, so it can be killed at any moment and
started again, and two at the same time do no harm. Unlike an owner, it emits nothing: results are compared with those
in the results topic, and missing ones are left in the outbox for the next owner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.acquire import check_log, check_ordered
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.batching import BatchSplitter, in_parts
from waypost_worker.partition.encode import NullEncoder, ResultEncoder
from waypost_worker.partition.failure import BatchSizer, SlowBatchError, SlowCommandError, Suspects
from waypost_worker.partition.fold import BatchFolder
from waypost_worker.partition.foreign import without_foreign
from waypost_worker.partition.ports import (
    AcquiredState,
    CommandLog,
    Commit,
    ResultsLog,
    Store,
    StoredOutbox,
    TimedOutError,
)
from waypost_worker.partition.skips import SkipOrders, check_unmet, find_orders
from waypost_worker.partition.stretches import passed_over
from waypost_worker.recovery.replay.comparison import CompareOptions, Comparison
from waypost_worker.recovery.retry import RecoveryProgress, patiently


@dataclass(frozen=True, slots=True)
class ReplayLimits:
    """Bounds of one partition's replay; none changes what comes out. Times in seconds.

    Batches are large, because checkpoints that a batch creates and removes are never written.
    """

    batch_records: int = 10_000
    batch_bytes: int = 16 * 1024 * 1024
    cache_items: int = 400_000
    patience: float = 60


@dataclass(slots=True)
class Replayed:
    """The outcome for a partition. ``began`` and ``next_offset`` are offsets in the command topic.

    ``compared`` results equal those in the topic; ``owed`` ones were never emitted, and the next owner does it;
    ``emitted`` ones went to another topic.
    """

    partition: int
    began: int
    next_offset: int
    commands: int = 0
    compared: int = 0
    owed: int = 0
    emitted: int = 0


class ReplayPorts(NamedTuple):
    """A replay's access to the outside. Logs are created again after each temporary failure."""

    make_log: Callable[[], CommandLog]
    make_results: Callable[[], ResultsLog]
    store: Store
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class PartitionReplay:
    """Rebuilds one partition up to, and without, ``end``."""

    def __init__(
        self,
        partition: int,
        results_topic: str,
        ports: ReplayPorts,
        end: int,
        progress: RecoveryProgress,
        limits: ReplayLimits | None = None,
        compare: CompareOptions | None = None,
    ) -> None:
        self.outcome = Replayed(partition, 0, 0)
        self._partition = partition
        self._encoder = ResultEncoder(results_topic, partition)
        self._ports = ports
        self._end = end
        self._progress = progress
        self._limits = limits or ReplayLimits()
        self._compare = compare or CompareOptions()
        self._begun = False
        self._sizer = BatchSizer(self._limits.batch_records)

    async def run(self) -> Replayed:
        """Replay to the end, and wait through temporary failures of Kafka or Postgres.

        FencedError if another replay or a worker took the partition; RefusedError and DifferenceError as they
        say.
        """
        await patiently(
            self._attempt, lambda: self.outcome.commands, self._ports.sleep, self._limits.patience
        )
        return self.outcome

    async def _attempt(self) -> None:
        log, results = self._ports.make_log(), self._ports.make_results()
        comparison: Comparison | None = None
        try:
            partitions = await log.partitions()
            acquired = await self._ports.store.acquire(partitions)
            if not self._begun:
                self._begun = True
                self.outcome.began = self.outcome.next_offset = acquired.next_offset
            if acquired.next_offset >= self._end:
                return
            await check_log(log, acquired.next_offset, acquired.anchor)
            comparison = Comparison(
                without_foreign(results, acquired.foreign_results),
                acquired.emitted,
                acquired.results_offset,
                acquired.next_offset,
                self._compare,
            )
            await comparison.open(self._end - 1)
            orders = await find_orders(
                self._ports.make_log, acquired.state(), self._partition, acquired.next_offset
            )
            if acquired.skip_offset is not None:
                await check_ordered(log, orders, acquired.skip_offset)
            await self._batches(log, partitions, acquired, comparison, orders)
        finally:
            if comparison is not None:
                await comparison.close()
            await asyncio.gather(log.close(), results.close())

    async def _batches(
        self,
        log: CommandLog,
        partitions: int,
        acquired: AcquiredState,
        comparison: Comparison,
        orders: SkipOrders,
    ) -> None:
        store, limits = self._ports.store, self._limits
        silent = NullEncoder(self._partition)
        folder = BatchFolder(
            self._encoder, store, acquired.state(), acquired.rejected_window, lambda: limits.cache_items
        )
        next_offset = acquired.next_offset
        await log.seek(next_offset)
        while records := await self._gather(log, next_offset):
            most = self._sizer.most_records(next_offset)
            parts = [
                part for some in _parts(records, comparison.silent_below) for part in in_parts(some, most)
            ]
            for part in parts:
                pieces = BatchSplitter(part, self._partition, partitions, limits.batch_bytes, orders)
                unseen = part[-1].offset < comparison.silent_below
                folder.encoder = silent if unseen else self._encoder
                while pieces:
                    with self._in_time(part, next_offset):
                        next_offset = await self._batch(
                            folder, pieces, acquired, comparison, next_offset, unseen, log
                        )

    @contextmanager
    def _in_time(self, records: Sequence[KafkaRecord], next_offset: int) -> Iterator[None]:
        """Make batches smaller after one that was too slow. SlowCommandError for a single command."""
        try:
            yield
        except TimedOutError as error:
            left = [record.offset for record in records if record.offset >= next_offset]
            slow = SlowBatchError(error, Suspects(next_offset, left[0], left[-1], len(left)))
            offset = self._sizer.timed_out(slow.suspects)
            if offset is not None:
                raise SlowCommandError(self._partition, offset, self._sizer.slow_terms, slow) from error
            raise slow from error

    async def _batch(
        self,
        folder: BatchFolder,
        pieces: BatchSplitter,
        acquired: AcquiredState,
        comparison: Comparison,
        next_offset: int,
        unseen: bool,
        log: CommandLog,
    ) -> int:
        """Apply one batch; return the next offset. With ``unseen``, nobody looks at its results."""
        commands, _, changes, results, items, unmet = await folder.fold(pieces, next_offset)
        await check_unmet(log, unmet)
        first, last = commands[0].record, commands[-1].record
        if unseen:
            items = []
        else:
            compared = comparison.compared
            await comparison.hold(results)
            self.outcome.compared += comparison.compared - compared
            items = [item for item in items if item[0] > comparison.highest]
            self.outcome.owed += len(items)
        await self._ports.store.commit(
            Commit(
                epoch=acquired.epoch,
                expected_offset=next_offset,
                next_offset=last.offset + 1,
                anchor=anchor_of(last),
                # If nothing is pending, this is the batch's last command, or more: no entry is written.
                emitted=comparison.emitted,
                results_offset=comparison.results_offset,
                outbox=StoredOutbox(first.offset, last.offset, outbox.pack(items)),
                changes=changes,
                by_owner=False,
            )
        )
        self._sizer.applied(len(commands))
        folder.settle()
        self.outcome.commands += len(commands)
        self.outcome.next_offset = last.offset + 1
        self._progress.advanced(self._partition, len(commands), last.offset + 1)
        return last.offset + 1

    async def _gather(self, log: CommandLog, next_offset: int) -> list[KafkaRecord]:
        """The next batch's records, all below the end; none once there are none."""
        gathered: list[KafkaRecord] = []
        size = 0
        most = self._sizer.most_records(next_offset) or self._limits.batch_records
        while len(gathered) < most and size < self._limits.batch_bytes:
            if gathered and gathered[-1].offset >= self._end - 1:
                break
            records = await log.fetch(most - len(gathered))
            if not records:
                behind = gathered[-1].offset + 1 if gathered else next_offset
                if await passed_over(log, behind, self._end) >= self._end:
                    break
                continue
            gathered += [record for record in records if next_offset <= record.offset < self._end]
            size += sum(len(record.value or b"") for record in records)
            if records[-1].offset >= self._end - 1:
                break
        return gathered


def _parts(records: Sequence[KafkaRecord], silent_below: int) -> list[Sequence[KafkaRecord]]:
    """Divide records where results begin to be looked at."""
    at = next((at for at, record in enumerate(records) if record.offset >= silent_below), len(records))
    return [part for part in (records[:at], records[at:]) if part]
