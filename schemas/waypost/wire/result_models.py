"""Results for subscribers: one pydantic model per result type. Unknown fields are ignored, because results may grow.

The worker builds results by hand for speed; a test holds every one of them against these models. Pure.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from waypost.wire.event_types import EventType
from waypost.wire.id_lists import MAX_LISTED, expand_ids


class Result(BaseModel):
    """Base of all result bodies."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Range = Annotated[
    list[int],
    Field(min_length=2, max_length=2, description="first and last number of consecutive checkpoints"),
]


class CommandPlace(Result):
    """Which command a result answers; partition and offset are the read-your-writes token."""

    id: str | None = Field(description="the command id; null where it could not be read")
    partition: int
    offset: int


class ShownCheckpoint(Result):
    """A checkpoint in a result."""

    id: str
    name: str
    timestamp: str = Field(description="when the agent took it, RFC 3339, UTC")
    recorded_at: str = Field(description="the broker's clock, RFC 3339, UTC")
    data: dict[str, Any]
    metadata: dict[str, Any]
    pinned: bool
    imported_id: str | None = None


class ShownPolicy(Result):
    """A retention policy in a result."""

    max_checkpoints: int
    compress_after: int
    keep_recent: int
    max_age: int | float | None = Field(description="seconds; null keeps checkpoints indefinitely")
    encrypted: bool = Field(
        default=False, description="whether only encrypted data is accepted; left out if it isn't"
    )


class SessionResult(Result):
    """Base of the results of accepted commands on a session."""

    session_id: str
    removed: list[str] = Field(
        description="ids of the checkpoints that were dropped along with this command; empty if they are in "
        "removed_ranges"
    )
    removed_ranges: list[Range] = Field(
        default=[],
        max_length=MAX_LISTED,
        description="instead of removed, if that would take more than 1 MiB of JSON: an id is the session id, a "
        "colon and the number",
    )
    command: CommandPlace

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, body: Any) -> Any:
        return expand_ids(dict(body)) if isinstance(body, dict) else body


class Created(SessionResult):
    """A checkpoint was created."""

    checkpoint: ShownCheckpoint


class AboutCheckpoint(SessionResult):
    """A checkpoint was pinned, unpinned or deleted."""

    checkpoint_id: str


class Cleared(SessionResult):
    """All checkpoints of a session were dropped."""

    count: int


class RolledBack(SessionResult):
    """A rollback was recorded; the checkpoint carries its data."""

    checkpoint: ShownCheckpoint


class Imported(SessionResult):
    """An import was taken over; ``ids`` are where its items are now, in the order of the list."""

    imported: int
    replaced: int
    skipped: int
    ids: list[str] = Field(description="empty if they are in id_ranges")
    id_ranges: list[Range] = Field(
        default=[],
        max_length=MAX_LISTED,
        description="instead of ids, if they would take more than 1 MiB of JSON, in their order",
    )


class Configured(SessionResult):
    """The session's own new policy."""

    policy: ShownPolicy


_IDLE_SINCE = Field(description="as in the command, RFC 3339, UTC")


class Expired(SessionResult):
    """A session was idle, and its checkpoints were dropped; pinned ones stay unless the command names them."""

    idle_since: str = _IDLE_SINCE
    last_recorded_at: str = Field(
        description="the broker's clock at the last accepted command before, RFC 3339, UTC"
    )
    count: int = Field(description="how many checkpoints were dropped; 0 if none was left to drop")


class Erased(SessionResult):
    """All that a session held was dropped for good, and every later command to it is rejected as ``erased``."""

    erased_at: str = Field(
        description="the broker's clock at the session's first erase command, RFC 3339, UTC; earlier than this result "
        "if the session was erased already"
    )
    count: int = Field(description="how many checkpoints were dropped, pinned ones included")


class Kept(Result):
    """A session was not idle, so it did not expire and nothing changed."""

    session_id: str
    idle_since: str = _IDLE_SINCE
    last_recorded_at: str | None = Field(
        description="the broker's clock at the last accepted command, RFC 3339, UTC; null if there was none"
    )
    command: CommandPlace


class DefaultsConfigured(Result):
    """The new policy of sessions of this partition without their own."""

    policy: ShownPolicy
    command: CommandPlace


class AuthorityConfigured(Result):
    """Commands about this partition must be signed with this key from now on."""

    key: str | None = Field(description="Ed25519 public key in base64; null: anybody may send such commands")
    command: CommandPlace


class Skipped(Result):
    """A command further up was skipped by this order; its own result is a rejection with the code ``skipped``."""

    offset: int = Field(description="of the skipped command, in this partition")
    reason: str
    command: CommandPlace


class Rejected(Result):
    """A command was rejected and changed nothing; the raw command is kept."""

    session_id: str | None
    code: str
    message: str
    command: CommandPlace


class Duplicate(Result):
    """A command id that was accepted before; nothing changed."""

    session_id: str | None
    checkpoint_id: str | None = Field(description="the checkpoint of the first one, where still known")
    command: CommandPlace


class Acquired(Result):
    """A worker took the partition over. Subscribers skip it."""

    partition: int
    epoch: int
    next_offset: int
    producer_id: int | None = None
    producer_epoch: int | None = None


RESULTS: Final[dict[str, type[Result]]] = {
    EventType.CREATED: Created,
    EventType.PINNED: AboutCheckpoint,
    EventType.UNPINNED: AboutCheckpoint,
    EventType.DELETED: AboutCheckpoint,
    EventType.CLEARED: Cleared,
    EventType.ROLLED_BACK: RolledBack,
    EventType.IMPORTED: Imported,
    EventType.CONFIGURED: Configured,
    EventType.EXPIRED: Expired,
    EventType.ERASED: Erased,
    EventType.KEPT: Kept,
    EventType.DEFAULTS_CONFIGURED: DefaultsConfigured,
    EventType.AUTHORITY_CONFIGURED: AuthorityConfigured,
    EventType.SKIPPED: Skipped,
    EventType.REJECTED: Rejected,
    EventType.DUPLICATE: Duplicate,
    EventType.ACQUIRED: Acquired,
}
