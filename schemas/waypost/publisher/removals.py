"""A log line for the first checkpoints that retention removes from a session, as results report it.

Retention is part of normal operation, so that only the first session in a process gets a warning.
"""

import logging
from typing import Any, Final

from waypost.model.retention import RetentionPolicy
from waypost.wire.event_types import EventType

log = logging.getLogger("waypost")
_RETAINING: Final = (EventType.CREATED, EventType.IMPORTED)
_SESSIONS: Final = 10_000  # that are remembered
_DEFAULT: Final = RetentionPolicy()


class RemovalLog:
    """Remembers the sessions whose first removal was logged."""

    def __init__(self) -> None:
        self._seen: dict[str, None] = {}

    def note(self, session_id: str, result_type: str, body: dict[str, Any]) -> None:
        """Log what the result of a command says that retention removed, unless the session had that before."""
        if result_type not in _RETAINING or not (removed := body.get("removed")) or session_id in self._seen:
            return
        level = logging.INFO if self._seen else logging.WARNING
        self._seen[session_id] = None
        if len(self._seen) > _SESSIONS:
            del self._seen[next(iter(self._seen))]
        log.log(
            level,
            "Retention removed %d checkpoint(s) of session %r, because its policy keeps no more. The default policy "
            "keeps %d, and above %d only the latest of each name between the first and the last %d. See 'waypost "
            "session policy'; later removals of this session are not logged.",
            len(removed),
            session_id,
            _DEFAULT.max_checkpoints,
            _DEFAULT.compress_after,
            _DEFAULT.keep_recent,
        )
