"""The owner of one partition: acquire, then fetch, apply, commit and emit, batch after batch, until told to
stop.

A *term* is the time from one acquisition to the next. Whatever goes wrong ends the term, never the command:
memory and producer are dropped, and the next term reads the truth from Postgres and Kafka again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final, TypeVar

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.acquire import RenewalDueError, acquire, check_log
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.apply import Decoded
from waypost_worker.partition.emission import Emission
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.fold import Folder
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.pace import Pace
from waypost_worker.partition.pieces import Pieces
from waypost_worker.partition.ports import (
    Clock,
    CommandLog,
    Commit,
    OwnerError,
    RefusedError,
    ResultRecord,
    ResultsLog,
    Store,
    StoredOutbox,
    UnavailableError,
)

_T = TypeVar("_T")
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0


class StuckError(OwnerError):
    """The consumer gives nothing although the log goes on, a known failure of Kafka clients."""


class _StoppedError(Exception):
    """The owner is to stop, and waits where nothing needs to be finished first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one owner. Times in seconds. None of them changes what a command means."""

    batch_records: int = 2000
    batch_bytes: int = 4 * 1024 * 1024
    cache_items: int = 400_000
    # Both producer ids and idle epochs expire, after 7 days and 1 day by default (doctor holds brokers to
    # at least 24 hours): a renewal writes a fence record long before.
    renew_after: float = 12 * 3600
    # An owner that was frozen for longer must not append on the strength of what it knew before.
    proof_valid: float = 300
    stuck_after: float = 30
    # Who did not look at the log for so long was frozen, and the log may have been replaced meanwhile.
    look_again_after: float = 10
    refused_wait: float = 30
    accept_trimmed_results: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """How an owner reaches the outside. Log and results are made anew for each term."""

    make_log: Callable[[], CommandLog]
    make_results: Callable[[], ResultsLog]
    store: Store
    clock: Clock


class Owner:
    """Owns one partition as long as :meth:`run` runs.

    ``cache_room`` tells how many items of sessions it may remember now, where owners share a worker's memory;
    ``limits.cache_items`` where they don't.
    """

    def __init__(
        self,
        partition: int,
        results_topic: str,
        ports: Ports,
        observer: Observer,
        limits: Limits | None = None,
        random: Random | None = None,
        cache_room: Callable[[], int] | None = None,
    ) -> None:
        self.partition = partition
        self.next_offset: int | None = None
        self.refused: str | None = None
        self._ports = ports
        self._observer = observer
        self._limits = limits or Limits()
        self._random = random or Random()
        self._cache_room = cache_room or (lambda: self._limits.cache_items)
        self._encoder = ResultEncoder(results_topic, partition)
        self._stop = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None
        self._stuck_terms = 0

    def stop(self) -> None:
        """Drain: finish the batch in hand, emit it, and end."""
        self._stop.set()
        if self._waiting is not None:
            self._waiting.cancel()

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    async def until_stop(self, waiting: Awaitable[_T]) -> _T | None:
        """The outcome of something that may be given up without loss, or None once :meth:`stop` was called."""
        if self._stop.is_set():
            asyncio.ensure_future(waiting).cancel()
            return None
        future: asyncio.Future[_T] = asyncio.ensure_future(waiting)
        self._waiting = future
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._stop.is_set() and (task is None or not task.cancelling()):
                return None
            future.cancel()
            raise
        finally:
            self._waiting = None

    async def run(self) -> None:
        """Terms until :meth:`stop`. StuckError if two terms in a row end with a stuck consumer."""
        wait = _FIRST_WAIT
        while not self._stop.is_set():
            term = _Term(self, self._ports, self._limits)
            why: OwnerError | None = None
            try:
                await term.run()
            except OwnerError as error:
                why = error
            except _StoppedError:
                pass
            finally:
                await term.close()
            self.refused = str(why) if isinstance(why, RefusedError) else None
            if term.progressed:
                wait, self._stuck_terms = _FIRST_WAIT, 0
            if isinstance(why, StuckError):
                self._stuck_terms += 1
                if self._stuck_terms > 1:
                    self._observer.ended(self.partition, why, 0)
                    raise why
            pause = 0.0
            if isinstance(why, RefusedError):
                pause = self._limits.refused_wait
            elif why is not None and not isinstance(why, RenewalDueError | StuckError):
                pause = wait * (0.5 + self._random.random())
                wait = min(wait * 2, _LONGEST_WAIT)
            self._observer.ended(self.partition, why, pause)
            if pause and not self._stop.is_set():
                await self.until_stop(self._ports.clock.sleep(pause))


class _Term:
    """One term: its ports, position and memory, all dropped together."""

    def __init__(self, owner: Owner, ports: Ports, limits: Limits) -> None:
        self.progressed = False
        self._owner = owner
        self._limits = limits
        self._clock = ports.clock
        self._store = ports.store
        self._log = ports.make_log()
        self._results = ports.make_results()
        self._emission: Emission | None = None

    async def run(self) -> None:
        """Acquire, then batch after batch; returns when the owner is to stop or the term is old enough."""
        began = self._clock.boottime()
        acquired = await acquire(
            self._log,
            self._results,
            self._store,
            self._owner._encoder,
            self._clock,
            sleep=self._sleep,
            proof_valid=self._limits.proof_valid,
            accept_trimmed_results=self._limits.accept_trimmed_results,
        )
        self._acquired = acquired
        self._folder = Folder(self._owner._encoder, self._store, acquired.defaults, self._owner._cache_room)
        self._anchor = acquired.anchor
        self._position = acquired.position
        self._emission = emission = Emission(
            self._results,
            acquired.position,
            acquired.proof,
            partial(self._owner._observer.emitted, self._owner.partition),
            self._clock.boottime,
            self._limits.batch_records,
            self._limits.batch_bytes,
        )
        self._owner.next_offset = acquired.position.next_offset
        self._owner._observer.acquired(self._owner.partition, acquired, self._clock.boottime() - began)
        moved_at = self._clock.boottime()
        self._seen_end = self._empty_up_to = self._position.next_offset
        looked_at = began
        pace = Pace(moved_at)
        while self._clock.boottime() - began <= self._limits.renew_after:
            if pace.pause:
                await self._owner.until_stop(self._clock.sleep(pace.pause))
            records = await self._owner.until_stop(self._log.fetch(self._limits.batch_records))
            if records is None:
                break
            if self._clock.boottime() - looked_at > self._limits.look_again_after:
                await check_log(self._log, self._position.next_offset, self._anchor)
                await self._check_skipped(records)
            looked_at = self._clock.boottime()
            if not records:
                emission.check()
                if self._clock.boottime() - moved_at > self._limits.stuck_after:
                    await self._check_stuck()
                    moved_at = self._clock.boottime()
                continue
            wanted = [record for record in records if record.offset >= self._position.next_offset]
            pieces = Pieces(wanted, self._owner.partition, acquired.partitions, self._limits.batch_bytes)
            while pieces:
                await self._apply(pieces.batch(), emission)
            moved_at = self._clock.boottime()
            pace.took(len(records), looked_at, moved_at - looked_at)
            self.progressed = True
        await emission.done()
        await self._release()

    async def _sleep(self, seconds: float) -> None:
        await self._owner.until_stop(self._clock.sleep(seconds))
        if self._owner.stopping:
            raise _StoppedError

    async def _apply(self, pieces: Iterable[list[Decoded]], emission: Emission) -> None:
        """One batch: load, decide and evolve, commit, hand over to emission, which goes on beside the next one."""
        began = self._clock.boottime()
        acquired, position = self._acquired, self._position
        commands, others, changes, made, items = await self._folder.fold(pieces, position.next_offset)

        first, last = commands[0].record, commands[-1].record
        results = made
        if first.offset <= self._position.suppressed_up_to:
            results, items = self._compare(made, items)
        emission.check()
        emitted, results_offset = position.to_store(last.offset + 1)
        commit = Commit(
            epoch=position.epoch,
            expected_offset=position.next_offset,
            next_offset=last.offset + 1,
            anchor=anchor_of(last),
            emitted=emitted,
            results_offset=results_offset,
            outbox=StoredOutbox(first.offset, last.offset, outbox.pack(items)),
            changes=changes,
        )
        commit_began = self._clock.boottime()
        with acquired.proof.renewed():
            await self._store.commit(commit)
        now = self._clock.boottime()
        position.next_offset = last.offset + 1
        self._anchor = commit.anchor
        self._owner.next_offset = position.next_offset
        self._folder.settle()
        told = AppliedBatch(
            commands, others, made, results, changes.rejected, now - began, now - commit_began
        )
        self._owner._observer.applied(self._owner.partition, told)
        emission.add(told)
        await emission.room()

    def _compare(
        self, results: list[tuple[int, ResultRecord]], items: list[outbox.Item]
    ) -> tuple[list[tuple[int, ResultRecord]], list[outbox.Item]]:
        """Hold results that are in the topic already against it; what remains is to be emitted."""
        for offset, record in results:
            if offset <= self._position.suppressed_up_to:
                self._acquired.tail.compare(offset, record)
        return (
            [one for one in results if one[0] > self._position.suppressed_up_to],
            [item for item in items if item[0] > self._position.suppressed_up_to],
        )

    async def _check_stuck(self) -> None:
        """StuckError if the log holds records that were there at the last check and never came.

        Records that came to the log since then may be on their way. Offsets before the end may also be
        nothing but transaction markers and aborted records; those are looked at once.
        """
        first = max(self._empty_up_to, self._position.next_offset)
        end = min(self._seen_end, first + 10_000)
        if end > first and await self._log.read(first, end):
            raise StuckError(
                f"the log has records from {first} on, but the consumer gave none for "
                f"{self._limits.stuck_after:.0f} s: starting it anew"
            )
        self._empty_up_to = max(first, end)
        self._seen_end = (await self._log.bounds())[1]

    async def _check_skipped(self, records: Sequence[KafkaRecord]) -> None:
        """UnavailableError if the log has records between the position and these, which the consumer passed over:
        where it saw markers and aborted records only, a log that was cut meanwhile may hold others now.
        """
        first = self._position.next_offset
        if records and records[0].offset > first and await self._log.read(first, records[0].offset):
            raise UnavailableError(
                f"the log holds records from {first} on that the consumer passed over: it was cut and written anew "
                "meanwhile; the partition is read anew"
            )

    async def _release(self) -> None:
        position = self._position
        await self._store.save_position(position.epoch, *position.to_store(position.next_offset))

    async def close(self) -> None:
        """Drop everything that this term held."""
        if self._emission is not None:
            await self._emission.close()
        await asyncio.gather(self._log.close(), self._results.close())
