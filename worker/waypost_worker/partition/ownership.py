"""An owner's knowledge of its ownership: its position, and when it last proved that it is the owner. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from waypost.model.partition_state import PartitionState
from waypost_worker.partition.ports import Clock, RejectedWindow, RenewalDueError, ResultRecord
from waypost_worker.partition.skips import SkipOrders
from waypost_worker.partition.tail import EmittedTail


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
    proof_lifetime: float = 300
    stuck_after: float = 30
    # An owner that did not read the log for this long was frozen, and the log may have been replaced in the meantime.
    look_again_after: float = 10
    # How often to ask whether the results topic still holds anything of this owner: a broker that starts again knows
    # no epochs but those of what is in the log.
    look_at_fence_after: float = 60
    refused_wait: float = 30
    # An operator accepted that results that retention removed before they were checked are treated as emitted.
    accept_trimmed_results: bool = False
    # Whether to look for orders to skip commands when acquiring, even if nothing indicates that there are any.
    look_ahead: bool = False


@dataclass(slots=True)
class Position:
    """The position of an owner. ``emitted`` and ``results_offset`` are the current results position (E, F); ``found``
    is the stored one, and ``suppressed_up_to`` is R. ``fence_record`` is the record that this owner appended to the
    results topic to fence older owners.
    """

    epoch: int
    next_offset: int
    emitted: int
    results_offset: int
    found: tuple[int, int]
    suppressed_up_to: int
    fence_record: ResultRecord

    def to_store(self, next_offset: int) -> tuple[int, int]:
        """The results position to be stored with ``next_offset``.

        Until the log is past R, that is the position that was found: results that are only compared must still come
        after it if another owner takes over. Otherwise, that owner would continue where this one had to refuse.
        """
        if next_offset <= self.suppressed_up_to:
            return self.found
        return self.emitted, self.results_offset


class Moment(NamedTuple):
    """A moment by two clocks. Both stop while a hypervisor pauses the machine, and the wall clock is corrected
    afterward; but it may also be set back.
    """

    boottime: float
    walltime: float

    @classmethod
    def of(cls, clock: Clock) -> "Moment":
        """Now."""
        return cls(clock.boottime(), clock.walltime())

    def since(self, earlier: "Moment") -> float:
        """Seconds since another moment, by the clock that counted more of them."""
        return max(self.boottime - earlier.boottime, self.walltime - earlier.walltime)


_NEVER: Final = Moment(float("-inf"), float("-inf"))


class OwnershipProof:
    """When this owner last knew that it was the owner: the moment at which it *asked* Postgres.

    A process may sleep between knowing and acting, for so long that another owner came and its fence was
    forgotten by the broker (``producer.id.expiration.ms``).

    ``lapsed`` says that proofs were further apart than they are valid. An owner with another producer id may have
    come in between and waited until nobody trusted an older proof. If Postgres was then restored to the moment before
    it came, this owner can prove its ownership again, and no epoch keeps it from appending what that one has emitted.
    So it appends its fence record first, which must land where its next result would (see ``emitter.emit``).
    """

    def __init__(self, clock: Clock, valid: float) -> None:
        self._clock = clock
        self._valid = valid
        self._at = _NEVER
        self._lapses = self._fenced_lapses = 0

    @property
    def lapsed(self) -> bool:
        """Return whether a fence record must be appended before anything else is."""
        return self._fenced_lapses < self._lapses

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Around a statement that only the owner can succeed with."""
        asked_at = Moment.of(self._clock)
        yield
        if asked_at.since(self._at) > self._valid:
            self._lapses += 1
        self._at = asked_at

    @contextmanager
    def fencing(self) -> Iterator[None]:
        """Around the append of a fence record and the check of where it landed."""
        lapses = self._lapses  # another lapse during the append needs another record
        yield
        self._fenced_lapses = lapses

    def check(self) -> None:
        """Raise RenewalDueError if the proof is too old to append."""
        age = Moment.of(self._clock).since(self._at)
        if age > self._valid:
            raise RenewalDueError(
                f"ownership was last proved {age:.0f} s ago, at most {self._valid:.0f} s are trusted: was this "
                "process suspended? Acquiring again"
            )


@dataclass(slots=True)
class Acquired:
    """The resources of an owner when a term begins."""

    position: Position
    anchor: bytes | None
    partitions: int
    state: PartitionState
    rejected_window: RejectedWindow
    tail: EmittedTail
    proof: OwnershipProof
    reemitted: int
    orders: SkipOrders
    clock_ahead: float | None = None  # of this machine, before the broker's; None if that is not known
