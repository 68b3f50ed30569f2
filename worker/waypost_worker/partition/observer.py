"""An owner's reports about its work. It knows no metrics or traces; its observers derive them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from waypost_worker.partition.batch import Decoded
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import OwnerError, RejectedRow, ResultRecord


class AppliedBatch(NamedTuple):
    """A committed batch. ``others`` are the places of all ``commands`` except accepted creates; ``made`` are the
    results of all of them, in the same order, with their offsets; ``results`` those to emit, ``rejected`` the rejected
    commands. Times are in seconds: from decoding to the end of the commit, and of that the commit. ``result_bytes`` is
    the size of the bodies of ``made``, ``rejected_dropped`` how many rejected commands were dropped to make room for
    newer ones.
    """

    commands: Sequence[Decoded]
    others: Sequence[int]
    made: Sequence[tuple[int, ResultRecord]]
    results: Sequence[tuple[int, ResultRecord]]
    rejected: Sequence[RejectedRow]
    seconds: float
    commit_seconds: float
    result_bytes: int
    rejected_dropped: int = 0


class Observer(Protocol):
    """Receives reports. Must return immediately and never raise. Called once per batch, never per command."""

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        """A term began."""
        ...

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        """A batch was committed; its results are about to be emitted."""
        ...

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        """A batch's results are in the topic."""
        ...

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        """A term ended: for good (None), or with an error; the next one begins after ``wait`` seconds."""
        ...
