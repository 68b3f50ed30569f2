"""Rebuilding one partition from its results, where the command topic no longer holds what is needed.

Resumable like a replay, and fenced like one. The rebuilt partition's position is after the last answered command, so
workers continue from there if the command topic has the rest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from waypost.model.partition_state import PartitionState
from waypost.subscriber.events import Event
from waypost.wire.envelope import glimpse
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.fold import SessionCache
from waypost_worker.partition.foreign import without_foreign
from waypost_worker.partition.ports import (
    AcquiredState,
    CommandLog,
    Commit,
    FetchedResult,
    RefusedError,
    RejectedWindow,
    ResultsLog,
    Store,
    StoredOutbox,
)
from waypost_worker.recovery.log_scan import is_fence, last_result
from waypost_worker.recovery.replay.partition_replay import ReplayLimits
from waypost_worker.recovery.replay.result_fold import Lost, ResultFold, retold_event
from waypost_worker.recovery.retry import RecoveryProgress, patiently

_BATCH: Final = 5000


@dataclass(slots=True)
class Rebuilt:
    """The outcome for a partition. ``missing`` results were removed by retention before they could be read.

    ``log_continues`` says whether the command topic has the rest: then workers continue from there.
    """

    partition: int
    began: int
    next_offset: int
    results: int = 0
    missing: int = 0
    lost: Lost = field(default_factory=Lost)
    log_continues: bool = False


class FromResultsPorts(NamedTuple):
    """Access to the outside. ``make_log`` is None if the command topic no longer exists."""

    make_log: Callable[[], CommandLog] | None
    make_results: Callable[[], ResultsLog]
    store: Store
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class FromResults:
    """Rebuilds one partition from the results topic."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        ports: FromResultsPorts,
        progress: RecoveryProgress,
        limits: ReplayLimits | None = None,
    ) -> None:
        self.outcome = Rebuilt(partition, 0, 0)
        self._partition = partition
        self._partitions = partitions
        self._ports = ports
        self._progress = progress
        self._limits = limits or ReplayLimits()
        self._begun = False

    async def run(self) -> Rebuilt:
        """Rebuild to the end of the results topic. Raise RefusedError if a record in it is not a result."""
        await patiently(self._attempt, lambda: self.outcome.results, self._ports.sleep, self._limits.patience)
        return self.outcome

    async def _attempt(self) -> None:
        results = self._ports.make_results()
        try:
            acquired = await self._ports.store.acquire(self._partitions)
            if not self._begun:
                self._begun = True
                self.outcome.began = self.outcome.next_offset = acquired.next_offset
            start, end = await results.bounds()
            if acquired.results_offset > end:
                raise RefusedError(
                    f"the results topic ends at {end}, before the stored position {acquired.results_offset}: it was "
                    "recreated or truncated, or is another deployment's. Nothing was changed; see --topic-prefix"
                )
            self.outcome.missing += max(0, start - acquired.results_offset)
            found = without_foreign(results, acquired.foreign_results)
            await self._batches(found, acquired, max(start, acquired.results_offset), end)
        finally:
            await results.close()

    async def _batches(self, results: ResultsLog, acquired: AcquiredState, first: int, end: int) -> None:
        state = acquired.state()
        cache = SessionCache(lambda: self._limits.cache_items)
        next_offset = acquired.next_offset
        last = await last_result(results, first, end)
        if last is None:
            return
        async for piece in results.read(first, end):
            for at in range(0, len(piece), _BATCH):
                next_offset = await self._batch(
                    acquired, cache, state, next_offset, piece[at : at + _BATCH], last.offset
                )

    async def _batch(
        self,
        acquired: AcquiredState,
        cache: SessionCache,
        state: PartitionState,
        next_offset: int,
        records: Sequence[FetchedResult],
        last_offset: int,
    ) -> int:
        events = [retold_event(self._partition, record) for record in records if not is_fence(record)]
        # Results that were emitted before the stored position could include them are already in Postgres.
        events = [event for event in events if event.token[1] >= next_offset]
        if not events:
            return next_offset
        touched = list(dict.fromkeys(event.session_id for event in events if event.session_id is not None))
        stored = await self._ports.store.load([one for one in touched if one not in cache.sessions])
        cache.sessions.update(stored)
        retold = ResultFold(cache.sessions, state, self.outcome.lost)
        try:
            for event in events:
                retold.add(event)
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                f"a result between offsets {records[0].offset} and {records[-1].offset} of partition "
                f"{self._partition} can't be read ({type(error).__name__}: {error}): it was kept as far as "
                "before these; find out who wrote it"
            ) from None
        (_, begin), (_, last) = events[0].token, events[-1].token
        retold.changes.rejected_window = RejectedWindow(
            since=last + 1
        )  # results do not show what was rejected
        is_end = events[-1].offset == last_offset
        await self._ports.store.commit(
            Commit(
                epoch=acquired.epoch,
                expected_offset=next_offset,
                next_offset=last + 1,
                anchor=await self._anchor(events[-1]) if is_end else None,
                emitted=last,
                results_offset=events[-1].offset + 1,
                outbox=StoredOutbox(begin, last, outbox.pack(())),
                changes=retold.changes,
                by_owner=False,
            )
        )
        cache.touch(touched)
        self.outcome.results += len(events)
        self.outcome.next_offset = last + 1
        self._progress.advanced(self._partition, len(events), last + 1)
        return last + 1

    async def _anchor(self, event: Event) -> bytes | None:
        """Return the hash of the last command's record, if the topic still has it, and whether the log continues."""
        if self._ports.make_log is None:
            return None
        log = self._ports.make_log()
        try:
            start, end = await log.bounds()
            offset = event.token[1]
            self.outcome.log_continues = start <= offset + 1 <= end
            if not start <= offset < end:
                return None
            records = await log.read(offset, offset + 1)
            if not records:
                return None
            if event.command_id is not None and glimpse(records[0])[0] != event.command_id:
                self.outcome.log_continues = False
                raise RefusedError(
                    f"the command at offset {offset} of partition {self._partition} is not the one that the last "
                    "result answers: the command topic was recreated, or is another deployment's. The last "
                    "batch was not written; give the command topic back, or remove it"
                )
            return anchor_of(records[0])
        finally:
            await log.close()
