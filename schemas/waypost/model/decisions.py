"""Decisions about commands: everything that evolve, storage and the result event need to know. Values only."""

from dataclasses import dataclass
from typing import NamedTuple

from waypost.model.commands import ImportItem
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy


class Created(NamedTuple):
    """A checkpoint was appended; ``removed`` are the numbers that retention dropped."""

    entry: Entry
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    """A checkpoint is exempt from retention now."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unpinned:
    """A checkpoint is subject to retention again."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """A checkpoint is gone; its number stays used. ``removed`` does not contain it."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleared:
    """All checkpoints are gone; ``removed`` names them."""

    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A rollback to ``number`` was recorded; ``removed`` are the dropped later ones and those too old."""

    number: int
    removed: tuple[int, ...] = ()


class Placed(NamedTuple):
    """The outcome of one imported item: ``number``, and ``imported``, ``replaced`` or ``skipped``."""

    number: int
    outcome: str
    entry: Entry | None  # None for skipped
    item: ImportItem


@dataclass(frozen=True, slots=True)
class Imported:
    """An import was taken over, item by item; ``removed`` may name items of this very import."""

    placed: tuple[Placed, ...]
    removed: tuple[int, ...] = ()

    def count(self, outcome: str) -> int:
        """Return how many items had this outcome."""
        return sum(placed.outcome == outcome for placed in self.placed)


@dataclass(frozen=True, slots=True)
class Configured:
    """The session has this policy of its own now."""

    policy: RetentionPolicy
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Expired:
    """The session was idle, and ``removed`` are gone.

    ``last_recorded_at`` is the time of its last accepted command before this one. With ``forgets``, the ids of its
    earlier commands are forgotten.
    """

    idle_since: int
    last_recorded_at: int
    removed: tuple[int, ...] = ()
    forgets: bool = False


@dataclass(frozen=True, slots=True)
class Erased:
    """Everything that the session held is gone, including ``removed`` and the ids of its earlier commands.

    ``erased_at`` is when its first erase command was recorded.
    """

    erased_at: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionKept:
    """The session was not idle, so it did not expire: nothing changed, and this is not remembered.

    ``last_recorded_at`` is the time of its last accepted command, None if there was none.
    """

    idle_since: int
    last_recorded_at: int | None


@dataclass(frozen=True, slots=True)
class DefaultsConfigured:
    """The new policy of sessions of this partition without their own."""

    policy: RetentionPolicy


@dataclass(frozen=True, slots=True)
class AuthorityConfigured:
    """Commands about this partition must be signed with this key from now on; None: with none."""

    key: bytes | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """The command at ``offset``, further up in the log, was skipped by this order."""

    offset: int
    reason: str


class NotSkipped(NamedTuple):
    """A valid order to skip a command that was not skipped: nothing changed."""

    offset: int
    record: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing changed, and why."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command was accepted before, and changed nothing now; ``number`` of the checkpoint it was about."""

    number: int | None


Accepted = (
    Created | Pinned | Unpinned | Deleted | Cleared | RolledBack | Imported | Configured | Expired | Erased
)
PartitionDecision = DefaultsConfigured | AuthorityConfigured | Skipped
Unchanged = Rejected | Duplicate | SessionKept
Decision = Accepted | PartitionDecision | Unchanged
