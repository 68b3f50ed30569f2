"""The names of the results that subscribers receive; their bodies are :mod:`waypost.wire.result_models`."""

from typing import Final

CREATED: Final = "waypost.checkpoint.created"
PINNED: Final = "waypost.checkpoint.pinned"
UNPINNED: Final = "waypost.checkpoint.unpinned"
DELETED: Final = "waypost.checkpoint.deleted"
CLEARED: Final = "waypost.session.cleared"
ROLLED_BACK: Final = "waypost.session.rolled_back"
IMPORTED: Final = "waypost.session.imported"
CONFIGURED: Final = "waypost.session.configured"
DEFAULTS_CONFIGURED: Final = "waypost.defaults.configured"
REJECTED: Final = "waypost.command.rejected"
DUPLICATE: Final = "waypost.command.duplicate"
ACQUIRED: Final = "waypost.partition.acquired"
RESULT_TYPES: Final = (
    CREATED,
    PINNED,
    UNPINNED,
    DELETED,
    CLEARED,
    ROLLED_BACK,
    IMPORTED,
    CONFIGURED,
    DEFAULTS_CONFIGURED,
    REJECTED,
    DUPLICATE,
    ACQUIRED,
)
