"""The owner of one partition: acquire, then fetch, apply, commit and emit, batch after batch, until told to
stop.

A *term* is the time from one acquisition to the next. Whatever goes wrong ends the term, never the command:
memory and producer are dropped, and the next term reads the truth from Postgres and Kafka again.
"""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, TypeVar

from waypost.backoff import Backoff
from waypost_worker.partition.encode import ResultEncoder
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
from waypost_worker.partition.term import StoppedError, StopSignal, Term

_T = TypeVar("_T")
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 5.0


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

    @property
    def progress(self) -> ReadProgress | None:
        """How far the log is read and applied, as this owner last knew it; None before it first acquired."""
        current = None if self._term is None else self._term.progress
        return self._left_at if current is None else current

    def stop(self) -> None:
        """Drain: finish the batch in hand, emit it, and end."""
        self._stop.set()

    async def until_stop(self, waiting: Awaitable[_T]) -> _T | None:
        """Wait for something that can be given up without loss; None once :meth:`stop` was called."""
        return await self._stop.until_set(waiting)

    async def run(self) -> None:
        """Terms until :meth:`stop`. StuckError if two terms in a row end with a stuck consumer."""
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, random=self._random)
        while not self._stop.is_set():
            term = self._term = Term(
                self.partition,
                self._ports,
                self._limits,
                self._encoder,
                self._observer,
                self._stop,
                self._cache_room,
            )
            why: OwnerError | None = None
            try:
                await term.run()
            except OwnerError as error:
                why = error
            except StoppedError:
                pass
            finally:
                self._left_at = self.progress
                await term.close()
            self.refused = str(why) if isinstance(why, RefusedError) else None
            if term.progressed:
                backoff.reset()
                self._stuck_terms = 0
            if isinstance(why, StuckError):
                self._stuck_terms += 1
                if self._stuck_terms > 1:
                    self._observer.ended(self.partition, why, 0)
                    raise why
            pause = 0.0
            if isinstance(why, RefusedError):
                pause = self._limits.refused_wait
            elif why is not None and not isinstance(why, RenewalDueError | StuckError):
                pause = backoff.next_wait()
            self._observer.ended(self.partition, why, pause)
            if pause and not self._stop.is_set():
                await self.until_stop(self._ports.clock.sleep(pause))
