"""Commands of agents: the plain values that command bodies become, checked and ready to decide on.

They are small frozen classes that hold JSON as bytes. :mod:`waypost.wire.command_models` says how a body looks on
the wire, :mod:`waypost.wire.event_types` how each command is called. Pure; knows neither Kafka nor Postgres, and no
pydantic: a publisher needs none.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

OnConflict = Literal["skip", "replace", "reject"]


class Create(NamedTuple):
    """Append a checkpoint. ``data`` is its JSON as received, ``metadata`` canonical JSON.

    ``encrypted`` says that the data is known to be encrypted, which saves a second look at it. If it is false, look.
    """

    name: str
    data: bytes
    metadata: bytes = b"{}"
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class Pin:
    """Exempt a checkpoint from retention."""

    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Unpin:
    """Give a checkpoint back to retention."""

    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Drop one checkpoint."""

    checkpoint_id: str


@dataclass(frozen=True, slots=True)
class Clear:
    """Drop all checkpoints."""


@dataclass(frozen=True, slots=True)
class Rollback:
    """Record a rollback; with ``discard_later`` drop every higher number."""

    checkpoint_id: str
    discard_later: bool = False


class ImportItem(NamedTuple):
    """One checkpoint of an import; ``timestamp`` in microseconds."""

    id: str
    name: str
    timestamp: int
    data: bytes
    metadata: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Import:
    """Take checkpoints over from an export."""

    checkpoints: tuple[ImportItem, ...]
    on_conflict: OnConflict = "skip"


@dataclass(frozen=True, slots=True)
class Configure:
    """Change the named fields of a session's policy; ``max_age`` in microseconds.

    ``changes`` contains only the fields that the command named, so that null for max_age (keep indefinitely) differs
    from not naming it.
    """

    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Expire:
    """Drop the checkpoints of a session that was idle since ``idle_since`` (microseconds); with ``pinned``, all."""

    idle_since: int
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Erase:
    """Drop all that a session holds, for good. A tombstone stays, and rejects every later command but another erase."""


@dataclass(frozen=True, slots=True)
class ConfigureDefaults:
    """Change the named fields of the policy of sessions without their own, in one partition."""

    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class ConfigureAuthority:
    """Let only the holder of a key configure this partition from now on; with None, anybody again."""

    key: bytes | None


@dataclass(frozen=True, slots=True)
class Skip:
    """Answer the command at ``offset`` of this partition with a rejection that gives ``reason``, unread.

    ``record`` is the hash of its whole record, so that no other command can be meant.
    """

    offset: int
    record: bytes
    reason: str


PartitionAction = ConfigureDefaults | ConfigureAuthority | Skip
Action = (
    Create | Pin | Unpin | Delete | Clear | Rollback | Import | Configure | Expire | Erase | PartitionAction
)


class Command(NamedTuple):
    """An action with its place in the log.

    ``position`` rises with every command of a session: the Kafka offset, or a counter if there is no log. ``taken_at``
    and ``recorded_at`` are microseconds: the agent's and the broker's clock. ``id`` is None only for commands that
    nobody can repeat (the in-memory manager's own).
    """

    id: str | None
    position: int
    taken_at: int
    recorded_at: int
    action: Action
