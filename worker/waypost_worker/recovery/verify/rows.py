"""Rows of one partition in Postgres as of one moment: the port through which verify reads."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from waypost.model.authority import Authority
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import ForeignRecord, RejectedRow, RejectedWindow, StoredOutbox
from waypost_worker.recovery.shares import Share


class StoredPartition(NamedTuple):
    """A partition's row, without what the log does not decide."""

    partitions: int
    next_offset: int
    anchor: bytes | None
    emitted: int
    results_offset: int
    default_policy: RetentionPolicy
    default_commands: list[str]
    authority: Authority
    rejected_window: RejectedWindow
    foreign_results: Sequence[ForeignRecord] = ()

    def state(self) -> PartitionState:
        """Return what commands about the whole partition came to so far."""
        return PartitionState(self.default_policy, list(self.default_commands), self.authority)


class StoredSession(NamedTuple):
    """A row of ``sessions``. Times in microseconds."""

    session_id: str
    counter: int
    policy: RetentionPolicy | None
    checkpoints: int
    first_recorded_at: int
    last_recorded_at: int
    erased_at: int | None = None


class StoredCheckpoint(NamedTuple):
    """A row of ``checkpoints``; ``metadata`` is canonical JSON. Times in microseconds."""

    session_id: str
    number: int
    imported_id: str | None
    name: str
    taken_at: int
    recorded_at: int
    data: bytes
    metadata: bytes
    pinned: bool
    command_id: str | None
    position: int


class StoredCommand(NamedTuple):
    """A row of ``recent_commands``."""

    session_id: str
    position: int
    command_id: str
    number: int | None


class Stray(NamedTuple):
    """A row that belongs to no session, or to no partition of the log."""

    table: str
    key: str


class VerifiedRows(Protocol):
    """Yield rows of one partition, all as of the same moment, and only those of a ``share`` of the sessions (see
    ``sampling``).
    """

    async def partition(self) -> StoredPartition | None:
        """Return the position of the partition; None if nothing was ever applied."""
        ...

    def sessions(self, share: Share) -> AsyncIterator[StoredSession]:
        """In no order."""
        ...

    def checkpoints(self, share: Share) -> AsyncIterator[StoredCheckpoint]:
        """In no order."""
        ...

    def commands(self, share: Share) -> AsyncIterator[StoredCommand]:
        """In no order."""
        ...

    def rejected(self, share: Share) -> AsyncIterator[RejectedRow]:
        """In no order."""
        ...

    async def outbox(self) -> Sequence[StoredOutbox]:
        """In order of offsets."""
        ...

    async def strays(self, partitions: int) -> Sequence[Stray]:
        """Return a few of the rows, of any partition, that belong nowhere. One partition of each database reports
        them.
        """
        ...


class OpenRows(Protocol):
    """Opens a snapshot of one partition."""

    def __call__(self, partition: int) -> AbstractAsyncContextManager[VerifiedRows]:
        """A snapshot of this very moment, until it is left."""
        ...
