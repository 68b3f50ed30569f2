"""One term of an owner: acquire, then fetch, apply, commit and emit, batch after batch.

Everything a term holds is dropped together when it ends: position, memory, producer and consumer. The next term
reads the truth from Postgres and Kafka again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from typing_extensions import override

from waypost.model.index import Session
from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.acquire import acquire, check_log
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.batching import AdaptiveLinger, BatchSplitter, in_parts
from waypost_worker.partition.emitter import ResultEmitter
from waypost_worker.partition.encode import Content, ResultEncoder
from waypost_worker.partition.failure import BatchSizer, SlowBatchError, Suspects, UnexpectedError
from waypost_worker.partition.fold import BatchFolder, StoredSessions
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Limits, Moment
from waypost_worker.partition.ports import (
    Commit,
    OwnerError,
    Ports,
    ReadProgress,
    ResultRecord,
    Store,
    StoredOutbox,
    StuckError,
    TimedOutError,
    UnavailableError,
)
from waypost_worker.partition.skips import check_unmet

_T = TypeVar("_T")


class StoppedError(Exception):
    """The owner was stopped while it waited for something that nobody needs to be finished."""


class StopSignal:
    """Stops an owner, and ends its current wait."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None

    def set(self) -> None:
        """Stop: waits through :meth:`until_set` are given up."""
        self._event.set()
        if self._waiting is not None:
            self._waiting.cancel()

    def is_set(self) -> bool:
        """Return whether :meth:`set` was called."""
        return self._event.is_set()

    async def until_set(self, waiting: Awaitable[_T]) -> _T | None:
        """Wait for something that can be given up without loss; None once :meth:`set` was called."""
        if self._event.is_set():
            asyncio.ensure_future(waiting).cancel()
            return None
        future: asyncio.Future[_T] = asyncio.ensure_future(waiting)
        self._waiting = future
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._event.is_set() and (task is None or not task.cancelling()):
                return None
            future.cancel()
            raise
        finally:
            self._waiting = None


class Term:
    """One term: its ports, position and memory, all dropped together.

    ``progress`` is how far the log is read and applied, None until the partition is acquired; ``progressed`` says that
    a batch was applied. ``cache_room`` returns how many items of sessions may be kept in memory now.
    """

    def __init__(
        self,
        partition: int,
        ports: Ports,
        limits: Limits,
        encoder: ResultEncoder,
        observer: Observer,
        stop: StopSignal,
        cache_room: Callable[[], int],
    ) -> None:
        self.progressed = False
        self.progress: ReadProgress | None = None
        self._partition = partition
        self._limits = limits
        self._encoder = encoder
        self._observer = observer
        self._stop = stop
        self._cache_room = cache_room
        self._ports = ports
        self._clock = ports.clock
        self._store = ports.store
        self._log = ports.make_log()
        self._results = ports.make_results()
        self._emission: ResultEmitter | None = None

    async def run(self, sizer: BatchSizer) -> None:
        """Acquire, then batch after batch; returns when the owner is to stop or the term is old enough.

        ``sizer`` says how many records a batch at a position may have, and is informed of those that were applied.
        """
        began = Moment.of(self._clock)
        acquired = await acquire(
            self._log, self._results, self._ports, self._encoder, self._limits, sleep=self._sleep
        )
        self._acquired = acquired
        store = _BlamelessStore(self._store)
        self._folder = BatchFolder(
            self._encoder, store, acquired.state, acquired.rejected_window, self._cache_room
        )
        self._anchor = acquired.anchor
        self._position = acquired.position
        self._emission = emission = ResultEmitter(
            self._results,
            acquired.position,
            acquired.proof,
            partial(self._observer.emitted, self._partition),
            self._clock.boottime,
            self._limits.batch_records,
            self._limits.batch_bytes,
        )
        self.progress = ReadProgress(acquired.position.next_offset)
        self._observer.acquired(self._partition, acquired, self._clock.boottime() - began.boottime)
        moved_at = self._clock.boottime()
        self._seen_end = self._empty_up_to = self._position.next_offset
        looked_at = fence_seen_at = began
        disturbances = self._log.disturbances
        pace = AdaptiveLinger(moved_at)
        while Moment.of(self._clock).since(began) <= self._limits.renew_after:
            if pace.pause:
                await self._stop.until_set(self._clock.sleep(pace.pause))
            most = sizer.most_records(self._position.next_offset)
            records = await self._stop.until_set(self._log.fetch(most or self._limits.batch_records))
            if records is None:
                break
            if Moment.of(self._clock).since(fence_seen_at) > self._limits.look_at_fence_after:
                if await self._fence_left_the_log():
                    break  # the next term writes another one
                fence_seen_at = Moment.of(self._clock)
            frozen = Moment.of(self._clock).since(looked_at) > self._limits.look_again_after
            if frozen or self._log.disturbances != disturbances:
                # Asked for first, so that what disturbs the look itself leads to another one.
                disturbances = self._log.disturbances
                await self._look_again(records)
            looked_at = Moment.of(self._clock)
            if not records:
                self.progress = self._log.progress
                emission.check()
                if self._clock.boottime() - moved_at > self._limits.stuck_after:
                    await self._check_stuck()
                    moved_at = self._clock.boottime()
                continue
            wanted = [record for record in records if record.offset >= self._position.next_offset]
            for some in in_parts(wanted, most):
                await self._apply_all(some, emission, sizer)
            self.progress = self._log.progress
            moved_at = self._clock.boottime()
            pace.took(len(records), looked_at.boottime, moved_at - looked_at.boottime)
            self.progressed = True
        await emission.done()
        await self._release()

    async def _sleep(self, seconds: float) -> None:
        await self._stop.until_set(self._clock.sleep(seconds))
        if self._stop.is_set():
            raise StoppedError

    async def _apply_all(
        self, records: Sequence[KafkaRecord], emission: ResultEmitter, sizer: BatchSizer
    ) -> None:
        """Apply these records in one or more batches."""
        acquired = self._acquired
        pieces = BatchSplitter(
            records, self._partition, acquired.partitions, self._limits.batch_bytes, acquired.orders
        )
        while pieces:
            sizer.applied(await self._apply(pieces, records, emission))

    async def _apply(
        self, pieces: BatchSplitter, records: Sequence[KafkaRecord], emission: ResultEmitter
    ) -> int:
        """Run one batch: load, decide and evolve, commit, and hand over to emission, which continues in parallel with
        the next one.

        ``records`` are those that the pieces are decoded from. Returns how many of them the batch had.
        """
        began = self._clock.boottime()
        acquired, position = self._acquired, self._position
        with self._suspecting(records):
            folded = await self._folder.fold(pieces, position.next_offset)
            commands, others, changes, made, items, unmet = folded
            first, last = commands[0].record, commands[-1].record
            results = made
            if first.offset <= self._position.suppressed_up_to:
                results, items = self._compare(made, items)
            anchor, payload = anchor_of(last), outbox.pack(items)
        if unmet:
            await check_unmet(self._log, unmet)
        emission.check()
        emitted, results_offset = position.to_store(last.offset + 1)
        commit = Commit(
            epoch=position.epoch,
            expected_offset=position.next_offset,
            next_offset=last.offset + 1,
            anchor=anchor,
            emitted=emitted,
            results_offset=results_offset,
            outbox=StoredOutbox(first.offset, last.offset, payload),
            changes=changes,
        )
        commit_began = self._clock.boottime()
        with acquired.proof.renewed():
            await self._commit(commit, len(commands))
        now = self._clock.boottime()
        position.next_offset = last.offset + 1
        self._anchor = commit.anchor
        self.progress = ReadProgress(position.next_offset)
        self._folder.settle()
        told = AppliedBatch(
            commands,
            others,
            made,
            results,
            changes.rejected,
            now - began,
            now - commit_began,
            sum([len(record.value) for _, record in made]),
            changes.rejected_dropped,
        )
        self._observer.applied(self._partition, told)
        emission.add(told)
        await emission.room()
        return len(commands)

    async def _commit(self, commit: Commit, count: int) -> None:
        """Commit a batch of ``count`` commands. SlowBatchError if a smaller one might have been done in time."""
        try:
            await self._store.commit(commit)
        except TimedOutError as error:
            batch = commit.outbox
            suspects = Suspects(commit.expected_offset, batch.first_offset, batch.last_offset, count)
            raise SlowBatchError(error, suspects) from error

    @contextmanager
    def _suspecting(self, records: Sequence[KafkaRecord]) -> Iterator[None]:
        """Turn an error that no port promises, or that a smaller batch may avoid, into one that suspects those of
        these records that are not applied.

        Only around what depends on nothing but the records and the stored sessions.
        """
        try:
            yield
        except TimedOutError as error:
            raise SlowBatchError(error, self._suspects(records)) from error
        except OwnerError:
            raise
        except Exception as error:
            raise UnexpectedError(error, self._suspects(records)) from error

    def _suspects(self, records: Sequence[KafkaRecord]) -> Suspects:
        position = self._position.next_offset
        left = [record.offset for record in records if record.offset >= position]
        return Suspects(position, left[0], left[-1], len(left))

    def _compare(
        self, results: list[tuple[int, ResultRecord]], items: list[outbox.Item]
    ) -> tuple[list[tuple[int, ResultRecord]], list[outbox.Item]]:
        """Compare results that are already in the topic; the rest must be emitted."""
        for offset, record in results:
            if offset <= self._position.suppressed_up_to:
                self._acquired.tail.compare(offset, record)
        return (
            [one for one in results if one[0] > self._position.suppressed_up_to],
            [item for item in items if item[0] > self._position.suppressed_up_to],
        )

    async def _check_stuck(self) -> None:
        """Raise StuckError if the log has records that were there at the last check and never came.

        Records that have arrived in the log since then may be on their way. Offsets before the end may also be only
        transaction markers and aborted records; those are checked immediately.
        """
        first = max(self._empty_up_to, self._position.next_offset)
        end = min(self._seen_end, first + 10_000)
        if end > first and await self._log.read(first, end):
            raise StuckError(
                f"the log has records from {first} on, but the consumer returned none for "
                f"{self._limits.stuck_after:.0f} s: restarting it"
            )
        self._empty_up_to = max(first, end)
        self._seen_end = (await self._log.bounds())[1]

    async def _look_again(self, records: Sequence[KafkaRecord]) -> None:
        """Check that the log is still the one whose records were applied. ``records`` are the next ones."""
        partitions = await self._log.partitions()
        if partitions != self._acquired.partitions:
            raise UnavailableError(
                f"the command topic has {partitions} partitions, and had {self._acquired.partitions}: acquiring again"
            )
        await check_log(self._log, self._position.next_offset, self._anchor)
        await self._check_skipped(records)

    async def _check_skipped(self, records: Sequence[KafkaRecord]) -> None:
        """Raise UnavailableError if the log has records between the position and these, which the consumer passed over:
        it may have seen only markers and aborted records, and a log that was truncated since then may have others now.
        """
        first = self._position.next_offset
        if records and records[0].offset > first and await self._log.read(first, records[0].offset):
            raise UnavailableError(
                f"the log has records from {first} on that the consumer skipped: it was truncated and "
                "written again; the partition is read again"
            )

    async def _fence_left_the_log(self) -> bool:
        """Return whether retention, or somebody, removed everything that this owner appended to the results topic."""
        start, _ = await self._results.bounds()
        return start >= self._position.results_offset

    async def _release(self) -> None:
        position = self._position
        await self._store.save_position(position.epoch, *position.to_store(position.next_offset))

    async def close(self) -> None:
        """Drop everything that this term held."""
        if self._emission is not None:
            await self._emission.close()
        await asyncio.gather(self._log.close(), self._results.close())


class _BlamelessStore(StoredSessions):
    """The reads that folding needs from the store. An unexpected error of the store itself casts no suspicion on
    commands.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @override
    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        with _blaming_nobody():
            return await self._store.sizes(session_ids)

    @override
    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        with _blaming_nobody():
            return await self._store.load(session_ids)

    @override
    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Content]:
        with _blaming_nobody():
            return await self._store.contents(keys)


@contextmanager
def _blaming_nobody() -> Iterator[None]:
    try:
        yield
    except OwnerError:
        raise
    except Exception as error:
        raise UnexpectedError(error) from error
