"""Who listens to owners: several at once, none of whom may do them harm; and the log as one of them."""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from typing_extensions import override

from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import FencedError, OwnerError, RefusedError

_ROOT: Final = logging.getLogger()  # its level is that of the log
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

    # Each loop stands here by itself: a batch tells two of them, and passing a call on would cost more than the calls.

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


class LogObserver(Observer):
    """Tells the log what owners do. Per-batch events are debug, terms are info, refusals are errors."""

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
                log.info("partition_released", partition=partition)
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
