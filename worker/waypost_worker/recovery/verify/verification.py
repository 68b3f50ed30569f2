"""Proving that Postgres matches the log, partition by partition, while workers keep running.

Most of the log is folded before anything is read. Then a snapshot of Postgres shows its position; the few commands in
between are folded, and every row of the snapshot is compared with the fold. The fold begins with the log, or with a
stored snapshot that the log still reaches back to. If the state does not fit into the given memory, verification takes
several passes, each over a share of the sessions, and each at its own moment.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from waypost.model.commands import Create
from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.batch import decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.foreign import without_foreign
from waypost_worker.partition.ports import CommandLog, RefusedError, RejectedWindow, ResultsLog
from waypost_worker.partition.skips import OrderScan, check_unmet
from waypost_worker.partition.stretches import stretches
from waypost_worker.recovery.json_diff import first_difference
from waypost_worker.recovery.log_scan import check_last_answer
from waypost_worker.recovery.memory_fold import MemoryFold
from waypost_worker.recovery.retry import RecoveryProgress
from waypost_worker.recovery.shares import WHOLE, Share
from waypost_worker.recovery.verify import base_snapshot
from waypost_worker.recovery.verify.base_snapshot import Base
from waypost_worker.recovery.verify.comparator import Comparator, Difference, Tally
from waypost_worker.recovery.verify.owed_results import ExpectedOutbox
from waypost_worker.recovery.verify.rows import OpenRows, StoredCheckpoint, StoredPartition, VerifiedRows

ROOM: Final = 1024 * 1024 * 1024


class VerifyProgress(RecoveryProgress, Protocol):
    """Receives the progress of a verification, and increases of the expected total."""

    def grow(self, commands: int) -> None:
        """Count this many more commands to fold."""
        ...


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The findings about one partition, from offset ``began`` up to ``next_offset`` (the position in the first of
    several ``passes``). ``purged`` rejected commands are in the log and no longer stored. ``fingerprint`` is a hash
    over all rows: two databases that hold one log up to the same offset share it; None if passes saw different offsets.
    """

    partition: int
    began: int
    next_offset: int
    rows: dict[str, int]
    differences: int
    first: Sequence[Difference]
    purged: int
    passes: int
    fingerprint: str | None


class _Pass(NamedTuple):
    """The outcome of a pass. The fold itself is dropped, because the next one needs its memory."""

    begin: int
    next_offset: int
    share: Share
    size: int


class VerifySources(NamedTuple):
    """The things to compare. The fold begins with ``base``, a snapshot, or with the log if there is none."""

    log: CommandLog
    results: ResultsLog
    open_snapshot: OpenRows
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """The thoroughness of the comparison. Sessions outside of ``share`` are left out. ``strict`` counts rejected
    commands that are no longer stored as differences, ``limit`` bounds the differences that are shown, ``room`` the
    bytes of sessions.
    """

    share: Share = WHOLE
    strict: bool = False
    limit: int = 10
    room: int = ROOM


class Verification:
    """Verifies one partition. Holds its sessions in memory, without their data."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        results_topic: str,
        sources: VerifySources,
        progress: VerifyProgress,
        options: VerifyOptions | None = None,
    ) -> None:
        options = options or VerifyOptions()
        self._partition = partition
        self._partitions = partitions
        self._encoder = ResultEncoder(results_topic, partition)
        self._log, self._results, self._open_snapshot, self._base = sources
        self._progress = progress
        self._share = options.share
        self._ahead: OrderScan | None = None
        self._strict = options.strict
        self._room = options.room
        self._tally = Tally(options.limit)

    async def run(self) -> VerifyReport:
        """Fold, read, compare. RefusedError if log and database can't be compared at all."""
        await self._check_reach()
        share = (
            self._share if self._base is None else base_snapshot.fitting(self._base, self._share, self._room)
        )
        done = first = await self._pass(share, first=True)
        passes, offsets = 1, {first.next_offset}
        if left := self._share.high - first.share.high:
            times = math.ceil(left / (first.share.high - first.share.low))
            self._progress.grow(times * (first.next_offset - first.begin))
        while done.share.high < self._share.high:
            more = 2 if done.size < self._room / 2 else 1
            done = await self._pass(done.share.following(self._share.high, more), first=False)
            passes += 1
            offsets.add(done.next_offset)
        return VerifyReport(
            self._partition,
            first.begin,
            first.next_offset,
            self._tally.rows,
            self._tally.count,
            [await self._explained(one, first.begin) for one in self._tally.found],
            self._tally.purged,
            passes,
            self._tally.fingerprint if len(offsets) == 1 else None,
        )

    async def _check_reach(self) -> None:
        start, _ = await self._log.bounds()
        if self._base is None:
            if start > 0:
                raise RefusedError(
                    f"retention removed the first {start} offsets of partition {self._partition} of the command "
                    "topic, so the log alone does not show what Postgres must hold. Nothing was compared; "
                    "name a snapshot that covers at least offset {start - 1}, with --from-snapshot"
                )
            return
        position = (await base_snapshot.position(self._base, self._partition)).next_offset
        if position < start:
            raise RefusedError(
                f"the snapshot {self._base.name!r} ends before offset {position} of partition {self._partition}, and "
                f"the log begins at {start}: retention removed the commands in between. Nothing was compared; use a "
                "newer snapshot"
            )

    async def _pass(self, share: Share, *, first: bool) -> "_Pass":
        """Compare one share, or the part of it that there is room for."""
        fold = MemoryFold(self._partition, self._partitions, share)
        if self._base is not None:
            await base_snapshot.begin(fold, self._base)
            self._fit(fold)
        if self._ahead is None:
            self._ahead = OrderScan(fold.state, self._partition, self._partitions, fold.begin)
        async with self._open_snapshot(self._partition) as snapshot:
            row = await snapshot.partition()
            settled = self._settled(fold, row)
        if first:
            results = self._results if row is None else without_foreign(self._results, row.foreign_results)
            await check_last_answer(self._log, results, (await self._log.bounds())[0])
        if row is not None:
            _count_rejected(fold, row.rejected_window.since)
        # If Postgres had skipped a command when its rows were read, the order was in the log before that.
        fold.orders = await self._ahead.advance(self._log)
        end = (await self._log.bounds())[1]
        await self._fold(fold, min(settled, end), fold.take)
        async with self._open_snapshot(self._partition) as snapshot:
            row = await snapshot.partition()
            fold.orders = await self._ahead.advance(self._log)
            owed = ExpectedOutbox(self._partition, self._encoder, first=first)
            await self._catch_up(fold, row, owed)
            rejected_below = 0 if row is None else row.rejected_window.below
            comparator = Comparator(fold, self._tally, self._strict, rejected_below)
            if first and row is not None:
                comparator.partition(row)
            async for session in snapshot.sessions(fold.share):
                comparator.session(session)
            async for checkpoint in snapshot.checkpoints(fold.share):
                comparator.checkpoint(checkpoint)
            async for command in snapshot.commands(fold.share):
                comparator.command(command)
            async for rejected in snapshot.rejected(fold.share):
                comparator.rejected(rejected)
            comparator.finish()
            if row is not None:
                results = without_foreign(self._results, row.foreign_results)
                await owed.compare(await snapshot.outbox(), row, results, self._tally)
            if first and self._share.whole:
                await self._strays(snapshot)
        return _Pass(fold.begin, fold.next_offset, fold.share, fold.size)

    async def _fold(self, fold: MemoryFold, end: int, take: Callable[[Sequence[KafkaRecord]], None]) -> None:
        async for records in stretches(self._log, fold.next_offset, end):
            take(records)
            await check_unmet(self._log, fold.take_unmet())
            self._fit(fold)
            self._progress.advanced(self._partition, len(records), fold.next_offset)

    def _fit(self, fold: MemoryFold) -> None:
        while fold.size > self._room and fold.halve():
            pass

    def _settled(self, fold: MemoryFold, row: StoredPartition | None) -> int:
        """Up to where answers are known to be emitted, and at least where the fold begins."""
        if fold.base is not None and (row is None or row.next_offset < fold.begin):
            stands = "nothing" if row is None else f"only up to offset {row.next_offset - 1}"
            raise RefusedError(
                f"Postgres has applied {stands} of partition {self._partition}, and the snapshot {fold.base!r} goes up "
                f"to {fold.begin - 1}. Nothing was compared; use an older snapshot"
            )
        return 0 if row is None else max(fold.begin, min(row.emitted + 1, row.next_offset))

    async def _catch_up(self, fold: MemoryFold, row: StoredPartition | None, owed: ExpectedOutbox) -> None:
        """Fold to the position of the snapshot. Results that are not emitted by then are noted as pending."""
        settled = self._settled(fold, row)
        # The answers that were known to be emitted may have gone back alone.
        if min(settled, 0 if row is None else row.next_offset) < fold.next_offset:
            raise RefusedError(
                f"partition {self._partition} of Postgres went back from offset {fold.next_offset} to "
                f"{settled} during verification; it may have been restored. Nothing was compared; verify "
                "again"
            )
        if row is None:
            return
        end = (await self._log.bounds())[1]
        if row.next_offset > end:
            raise RefusedError(
                f"Postgres has applied partition {self._partition} up to offset {row.next_offset - 1}, the topic "
                f"ends at {end}: it was recreated or truncated, or this is another cluster. Nothing was compared"
            )
        if self._base is not None:
            owed.begin(await self._base.outbox(), fold.begin, row.emitted)
        await self._fold(fold, settled, fold.take)
        await self._fold(fold, row.next_offset, lambda records: owed.take(fold, records))

    async def _strays(self, snapshot: VerifiedRows) -> None:
        """Find rows that no share and no partition would meet."""
        for stray in await snapshot.strays(self._partitions):
            text = "the row is in Postgres and should not be: it belongs to no session or partition"
            self._tally.differs(Difference(stray.table, stray.key, text))

    async def _explained(self, difference: Difference, begin: int) -> Difference:
        """Report the difference with its place in the data, if the log still has the data."""
        stored, position = difference.stored, difference.position
        if stored is None or position is None:
            return difference
        if self._base is not None and position < begin:
            return difference._replace(
                text=f"data or metadata is not what the snapshot {self._base.name} holds"
            )
        records = await self._log.read(position, position + 1)
        action = decode(records[0], self._partition, self._partitions).action if records else None
        if not isinstance(action, Create):
            return difference._replace(text=f"{difference.text}; it was imported by command {position}")
        return difference._replace(text=_content_text(stored, action, position))


def _count_rejected(fold: MemoryFold, since: int) -> None:
    """Count rejected commands from where the database does, which an earlier version may have made."""
    if fold.window is not None and fold.window.since != since:
        fold.window = RejectedWindow(since=since) if since >= fold.begin else None


def _content_text(stored: StoredCheckpoint, action: Create, position: int) -> str:
    for name, kept, given in (
        ("data", stored.data, action.data),
        ("metadata", stored.metadata, action.metadata),
    ):
        if kept != given:
            where = first_difference(kept, given, "Postgres", f"command {position}")
            if where == "they are the same":
                where = "only in white space or the spelling of the JSON"
            return f"{name} differs {where}"
    return "data or metadata differs"


def shown(partition: int, difference: Difference) -> dict[str, Any]:
    """A difference for programs."""
    return {
        "partition": partition,
        "table": difference.table,
        "key": difference.key,
        "difference": difference.text,
    }
