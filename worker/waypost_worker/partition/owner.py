"""The owner of one partition: acquire, then fetch, apply, commit and emit, batch after batch, until it is stopped.

A *term* is the time from one acquisition to the next. Any failure ends the term, never the command: memory and producer
are dropped, and the next term reads the state from Postgres and Kafka again. This includes unexpected errors. An owner
ends only when it is stopped or canceled, or when its consumer is permanently stuck.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from waypost.backoff import Backoff
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.failure import (
    BatchSizer,
    FailingCommandError,
    SlowBatchError,
    SlowCommandError,
    UnexpectedError,
)
from waypost_worker.partition.observer import Observer
from waypost_worker.partition.ownership import Limits
from waypost_worker.partition.ports import (
    OwnerError,
    Ports,
    ReadProgress,
    RefusedError,
    RenewalDueError,
    StuckError,
)
from waypost_worker.partition.skips import UnskippedError
from waypost_worker.partition.term import StoppedError, StopSignal, Term

_T = TypeVar("_T")
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0
# Each acquisition uses up a producer epoch, of which there are 32,767: a partition that fails repeatedly must not use
# them up in two days, and one that is permanently refused, in weeks.
_LONGEST_FAILURE_WAIT: Final = 30.0
_LONGEST_REFUSED_WAITS: Final = 20


class Owner:
    """Owns one partition as long as :meth:`run` runs.

    ``cache_room`` returns how many items of sessions it may keep in memory now, if owners share a worker's memory;
    ``limits.cache_items`` applies if they don't.
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
        self.refused: str | None = None
        self._ports = ports
        self._observer = observer
        self._limits = limits or Limits()
        self._random = random or Random()
        self._cache_room = cache_room or (lambda: self._limits.cache_items)
        self._encoder = ResultEncoder(results_topic, partition)
        self._stop = StopSignal()
        self._term: Term | None = None
        self._left_at: ReadProgress | None = None
        self._stuck_terms = 0
        self._sizer = BatchSizer(self._limits.batch_records)
        self._is_blocked = False
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, random=self._random)
        self._failure_backoff = Backoff(_FIRST_WAIT, _LONGEST_FAILURE_WAIT, random=self._random)
        refused_wait = self._limits.refused_wait
        self._refused_backoff = Backoff(refused_wait, _LONGEST_REFUSED_WAITS * refused_wait)

    @property
    def progress(self) -> ReadProgress | None:
        """Return how far the log is read and applied, as far as this owner knows; None before it first acquired."""
        current = None if self._term is None else self._term.progress
        return self._left_at if current is None else current

    def stop(self) -> None:
        """Drain: finish the current batch, emit it, and end."""
        self._stop.set()

    async def until_stop(self, waiting: Awaitable[_T]) -> _T | None:
        """Wait for something that can be given up without loss; None once :meth:`stop` was called."""
        return await self._stop.until_set(waiting)

    async def run(self) -> None:
        """Terms until :meth:`stop`. StuckError if two terms in a row end with a stuck consumer."""
        while not self._stop.is_set():
            pause = await self._run_term()
            if pause and not self._stop.is_set():
                await self._wait(pause)

    async def _wait(self, seconds: float) -> None:
        """Wait before the next term; no longer than necessary once an operator had a command skipped."""
        step = self._limits.refused_wait if self._is_blocked else seconds
        while seconds > 0 and not self._stop.is_set():
            await self.until_stop(self._ports.clock.sleep(min(step, seconds)))
            seconds -= step
            if self._is_blocked and seconds > 0 and await self._is_skip_requested():
                return

    async def _is_skip_requested(self) -> bool:
        with suppress(Exception):  # it only saves time; the next term will say what is wrong
            return bool(await self.until_stop(self._ports.store.is_skip_requested()))
        return False

    async def _run_term(self) -> float:
        """Run one term and return how long to wait before the next.

        The error that ended the term is cleared afterward, because its traceback holds the batch that was in progress.
        """
        why = await self._end_of_term()
        why = self._blamed(why)
        self._is_blocked = isinstance(why, FailingCommandError)
        if isinstance(why, FailingCommandError):
            with suppress(Exception):  # the next term will say what is wrong, and come here again
                await self._ports.store.note_blocked(why.offset)
        if isinstance(why, UnskippedError):
            # If the command is not committed yet, the next term skips it.
            self._limits = replace(self._limits, look_ahead=True)
        self.refused = str(why) if isinstance(why, RefusedError) else None
        if isinstance(why, StuckError):
            self._stuck_terms += 1
            if self._stuck_terms > 1:
                self._observer.ended(self.partition, why, 0)
                raise why
        pause = self._pause_after(why)
        self._observer.ended(self.partition, why, pause)
        return pause

    def _blamed(self, why: OwnerError | None) -> OwnerError | None:
        """Note the commands with which a term failed. Return the refusal of a single one, or ``why`` itself."""
        if isinstance(why, UnexpectedError) and why.suspects is not None:
            offset = self._sizer.failed(why.suspects)
            if offset is not None:
                return FailingCommandError(self.partition, offset, self._sizer.terms, why)
        elif isinstance(why, SlowBatchError):
            offset = self._sizer.timed_out(why.suspects)
            if offset is not None:
                return SlowCommandError(self.partition, offset, self._sizer.slow_terms, why)
        return why

    async def _end_of_term(self) -> OwnerError | None:
        """Run one term. Return what ended it, None if it came to its end."""
        try:
            term = self._term = Term(
                self.partition,
                self._ports,
                self._limits,
                self._encoder,
                self._observer,
                self._stop,
                self._cache_room,
            )
            try:
                await term.run(self._sizer)
            finally:
                self._left_at, self._term = self.progress, None
                if term.progressed:
                    self._stuck_terms = 0
                    for backoff in (self._backoff, self._failure_backoff, self._refused_backoff):
                        backoff.reset()
                await term.close()
        except StoppedError:
            return None
        except OwnerError as error:
            return error
        except Exception as error:
            return UnexpectedError(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody canceled this owner: something that it waited for was.
            return UnexpectedError(error)
        return None

    def _pause_after(self, why: OwnerError | None) -> float:
        """Return how long to wait before the next term."""
        if isinstance(why, FailingCommandError):
            return self._refused_backoff.next_wait()
        if isinstance(why, RefusedError):
            return self._limits.refused_wait
        if why is None or isinstance(why, RenewalDueError | StuckError):
            return 0.0
        if isinstance(why, SlowBatchError) and why.suspects.count > 1:
            return _FIRST_WAIT  # the next batch is smaller, and the store took its time already
        if not isinstance(why, UnexpectedError):
            return self._backoff.next_wait()
        if why.suspects is not None and self._sizer.is_searching:
            return _FIRST_WAIT  # each term brings the search closer to its end
        return self._failure_backoff.next_wait()
