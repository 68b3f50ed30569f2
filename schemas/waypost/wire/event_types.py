"""The type of every event: the commands that agents send, and the results that subscribers receive. Pure.

Command bodies are in :mod:`waypost.wire.command_models`, result bodies in :mod:`waypost.wire.result_models`.
"""

from enum import StrEnum
from typing import Final


class EventType(StrEnum):
    """A CloudEvents ``type``. ``wire`` is the same as bytes: the value of the header ``ce_type``.

    Code that runs for every record binds ``.value`` or ``.wire`` to a module constant: before Python 3.12,
    looking up a member and its value takes 0.2 µs.
    """

    wire: bytes

    # Commands.
    CREATE = "waypost.checkpoint.create"
    PIN = "waypost.checkpoint.pin"
    UNPIN = "waypost.checkpoint.unpin"
    DELETE = "waypost.checkpoint.delete"
    CLEAR = "waypost.session.clear"
    ROLLBACK = "waypost.session.rollback"
    IMPORT = "waypost.session.import"
    CONFIGURE = "waypost.session.configure"
    EXPIRE = "waypost.session.expire"
    ERASE = "waypost.session.erase"
    CONFIGURE_DEFAULTS = "waypost.defaults.configure"
    CONFIGURE_AUTHORITY = "waypost.authority.configure"
    SKIP = "waypost.partition.skip"
    # Results.
    CREATED = "waypost.checkpoint.created"
    PINNED = "waypost.checkpoint.pinned"
    UNPINNED = "waypost.checkpoint.unpinned"
    DELETED = "waypost.checkpoint.deleted"
    CLEARED = "waypost.session.cleared"
    ROLLED_BACK = "waypost.session.rolled_back"
    IMPORTED = "waypost.session.imported"
    CONFIGURED = "waypost.session.configured"
    EXPIRED = "waypost.session.expired"
    ERASED = "waypost.session.erased"
    KEPT = "waypost.session.kept"
    DEFAULTS_CONFIGURED = "waypost.defaults.configured"
    AUTHORITY_CONFIGURED = "waypost.authority.configured"
    SKIPPED = "waypost.partition.skipped"
    REJECTED = "waypost.command.rejected"
    DUPLICATE = "waypost.command.duplicate"
    ACQUIRED = "waypost.partition.acquired"

    def __new__(cls, value: str) -> "EventType":
        """Make a member with its bytes."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.wire = value.encode()
        return member


COMMAND_TYPES: Final[tuple[EventType, ...]] = (
    EventType.CREATE,
    EventType.PIN,
    EventType.UNPIN,
    EventType.DELETE,
    EventType.CLEAR,
    EventType.ROLLBACK,
    EventType.IMPORT,
    EventType.CONFIGURE,
    EventType.EXPIRE,
    EventType.ERASE,
    EventType.CONFIGURE_DEFAULTS,
    EventType.CONFIGURE_AUTHORITY,
    EventType.SKIP,
)
# Commands about a whole partition: their records have no key.
PARTITION_TYPES: Final[tuple[EventType, ...]] = (
    EventType.CONFIGURE_DEFAULTS,
    EventType.CONFIGURE_AUTHORITY,
    EventType.SKIP,
)
RESULT_TYPES: Final[tuple[EventType, ...]] = (
    EventType.CREATED,
    EventType.PINNED,
    EventType.UNPINNED,
    EventType.DELETED,
    EventType.CLEARED,
    EventType.ROLLED_BACK,
    EventType.IMPORTED,
    EventType.CONFIGURED,
    EventType.EXPIRED,
    EventType.ERASED,
    EventType.KEPT,
    EventType.DEFAULTS_CONFIGURED,
    EventType.AUTHORITY_CONFIGURED,
    EventType.SKIPPED,
    EventType.REJECTED,
    EventType.DUPLICATE,
    EventType.ACQUIRED,
)
