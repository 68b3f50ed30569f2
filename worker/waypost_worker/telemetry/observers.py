"""Observers of owners: several at the same time, whose failures don't affect owners. The log is one of them."""

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog
from typing_extensions import override

from waypost_worker.partition.failure import (
    FailingCommandError,
    RefusedCommandError,
    UnexpectedError,
    place_of,
)
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import FencedError, OwnerError, RefusedError

_ROOT: Final = logging.getLogger()  # its level is that of the log
_FAILURE_SECONDS: Final = 60.0
_MOST_FAILURES: Final = 100
_CLOCK_SECONDS: Final = 1.0  # as in 'waypost doctor'
_MOST_FRAMES: Final = 30
_MOST_CHARACTERS: Final = 8000
_M = TypeVar("_M", bound=Callable[..., None])
log = structlog.get_logger("waypost.worker")


def says_nothing(method: _M) -> _M:
    """Marks a method of an observer that does nothing: it is not called."""
    method.says_nothing = True  # type: ignore[attr-defined]
    return method


class Observers(Observer):
    """Passes everything on to several observers. One that raises is logged and left out from then on:
    telemetry must not end a term.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._hear_emitted = self._of_emitted()

    # Each loop is written out here: a batch calls two of them, and forwarding a call would cost more than the calls.

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        for observer in self._observers:
            try:
                observer.acquired(partition, acquired, seconds)
            except Exception:
                self._leave_out(observer)

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        for observer in self._observers:
            try:
                observer.applied(partition, batch)
            except Exception:
                self._leave_out(observer)

    @override
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        for observer in self._hear_emitted:
            try:
                observer.emitted(partition, batch, seconds)
            except Exception:
                self._leave_out(observer)

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        for observer in self._observers:
            try:
                observer.ended(partition, why, wait)
            except Exception:
                self._leave_out(observer)

    def _leave_out(self, failed: Observer) -> None:
        self._observers = tuple(observer for observer in self._observers if observer is not failed)
        self._hear_emitted = self._of_emitted()
        log.exception("observer_failed", observer=type(failed).__name__)

    def _of_emitted(self) -> tuple[Observer, ...]:
        return tuple(one for one in self._observers if not getattr(one.emitted, "says_nothing", False))


class FailureLog:
    """Logs unexpected errors: each once with its traceback, then at most one line a minute.

    Errors are the same if type and place are. A traceback shows no local variables, and its text is bounded.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When each was last logged, and how often it was left out since.
        self._lines: dict[tuple[object, str], tuple[float, int]] = {}

    def tell(self, event: str, error: BaseException, about: object = None, **details: Any) -> None:
        """Log ``error`` as ``event``, unless the same error ``about`` the same thing was logged a moment ago."""
        signature = (about, f"{type(error).__name__} at {place_of(error)}")
        now = self._clock()
        known = self._lines.get(signature)
        if known is not None and now - known[0] < _FAILURE_SECONDS:
            self._lines[signature] = (known[0], known[1] + 1)
            return
        if known is None:
            if len(self._lines) >= _MOST_FAILURES:
                del self._lines[next(iter(self._lines))]
            details["exception"] = _traceback(error)
        elif known[1]:
            details["not_logged"] = known[1]
        self._lines[signature] = (now, 0)
        log.error(event, **details)

    def forget(self, about: object) -> None:
        """Log with a traceback again what concerns this."""
        for signature in [one for one in self._lines if one[0] == about]:
            del self._lines[signature]


def _traceback(error: BaseException) -> str:
    text = "".join(traceback.TracebackException.from_exception(error, limit=-_MOST_FRAMES).format())
    half = _MOST_CHARACTERS // 2
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:half]}\n…\n{text[-half:]}"


class LogObserver(Observer):
    """Logs what owners do. Per-batch events are debug, terms are info, refusals are errors."""

    def __init__(self, failures: FailureLog | None = None) -> None:
        self._failures = failures or FailureLog()
        self._clock_was: str | None = None  # what was last said of it: all partitions see the same

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        log.info(
            "partition_acquired",
            partition=partition,
            epoch=acquired.position.epoch,
            next_offset=acquired.position.next_offset,
            reemitted=acquired.reemitted,
            milliseconds=round(seconds * 1000),
        )
        self._tell_clock(acquired.clock_ahead)

    def _tell_clock(self, ahead: float | None) -> None:
        if ahead is None:
            event, fix = (
                "results_dated_by_workers",
                "run 'waypost topics update': fences must not depend on this clock",
            )
        elif abs(ahead) > _CLOCK_SECONDS:
            event, fix = "clock_differs", "let this machine and the brokers follow a time server"
        else:
            self._clock_was = None
            return
        if event != self._clock_was:
            self._clock_was = event
            log.warning(event, **({} if ahead is None else {"seconds_ahead": round(ahead, 1)}), fix=fix)

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        # Looked at before anything else: passing a line on, to be dropped at the end, costs as much as all metrics.
        if _ROOT.level > logging.DEBUG:
            return
        log.debug(
            "batch",
            partition=partition,
            commands=len(batch.commands),
            rejected=len(batch.rejected),
            milliseconds=round(batch.seconds * 1000, 1),
        )

    @override
    @says_nothing
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        pass

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        match why:
            case None:
                self._failures.forget(partition)
                log.info("partition_released", partition=partition)
            case UnexpectedError():
                self._failed(partition, why, round(wait, 2))
            case RefusedCommandError():
                if isinstance(why, FailingCommandError):
                    self._failed(partition, why, round(wait))
                log.error(
                    "partition_refused",
                    partition=partition,
                    offset=why.offset,
                    reason=str(why),
                    retry_seconds=round(wait),
                )
            case RefusedError():
                log.error(
                    "partition_refused", partition=partition, reason=str(why), retry_seconds=round(wait)
                )
            case FencedError():
                log.info("partition_fenced", partition=partition, reason=str(why))
            case _:
                log.warning(
                    "term_ended",
                    partition=partition,
                    kind=type(why).__name__,
                    reason=str(why),
                    retry_seconds=round(wait, 2),
                )

    def _failed(self, partition: int, why: OwnerError, wait: float) -> None:
        error = why.__cause__ or why
        self._failures.tell(
            "owner_failed", error, partition, partition=partition, reason=str(why), retry_seconds=wait
        )
