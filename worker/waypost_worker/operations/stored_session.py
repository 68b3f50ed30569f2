"""A session as stored in Postgres at one moment, without data: the basis of previews, tables and timelines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

import orjson

from waypost.model.commands import Action
from waypost.model.index import Entry, Session
from waypost.model.preview import Preview, preview
from waypost.model.retention import RetentionPolicy
from waypost.model.times import to_micros

#: The metadata key of a fork's newest checkpoint with the id of its origin.
FORKED_FROM: Final = "forked_from"
_HERE: Final = "waypost_worker.operations/"


class Rows(Protocol):
    """Answers named statements about one session, all as of the same moment: a reader's snapshot."""

    async def fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Any]:
        """Return the rows of a named statement."""
        ...


@dataclass(frozen=True, slots=True)
class StoredSession:
    """Session with its live entries, lowest number first. ``sizes`` are the bytes of their data.

    ``policy`` is the one in effect, and ``own_policy`` says whether it is the session's own. ``last_position`` is the
    offset of the last command that was applied to the session, which distinguishes two states.
    """

    session_id: str
    partition: int
    counter: int
    policy: RetentionPolicy
    own_policy: bool
    first_recorded_at: datetime
    last_recorded_at: datetime
    next_offset: int
    last_position: int
    entries: tuple[Entry, ...]
    sizes: tuple[int, ...]
    erased_at: datetime | None = None

    def index(self) -> Session:
        """Return the session as the model decides on it."""
        policy = self.policy if self.own_policy else None
        erased_at = None if self.erased_at is None else to_micros(self.erased_at)
        entries = list(self.entries)
        return Session.restore(self.session_id, self.counter, policy, entries, [], erased_at=erased_at)

    def preview(self, action: Action, now: int) -> Preview:
        """Return what ``action`` would do at ``now``, in microseconds by the broker's clock.

        It is true as long as ``last_position`` stays the same.
        """
        return preview(self.index(), action, self.policy, now)


async def read_stored_session(rows: Rows, session_id: str) -> StoredSession | None:
    """Return a session, or None if no command of it was ever accepted."""
    found = await rows.fetch(f"{_HERE}session", session_id)
    if not found:
        return None
    return stored_session(found[0], await rows.fetch(f"{_HERE}entries", session_id))


def stored_session(row: Any, entries: Sequence[Any]) -> StoredSession:
    """Return what the rows of ``session.sql`` and ``entries.sql`` say."""
    own = row["policy"]
    return StoredSession(
        session_id=row["session_id"],
        partition=row["partition"],
        counter=row["counter"],
        policy=_policy(own) or _policy(row["default_policy"]) or RetentionPolicy(),
        own_policy=own is not None,
        first_recorded_at=row["first_recorded_at"],
        last_recorded_at=row["last_recorded_at"],
        next_offset=row["next_offset"],
        last_position=-1 if row["last_position"] is None else row["last_position"],
        entries=tuple(
            Entry(
                number=entry["number"],
                name=entry["name"],
                taken_at=to_micros(entry["taken_at"]),
                recorded_at=to_micros(entry["recorded_at"]),
                position=entry["position"],
                command_id=entry["command_id"],
                imported_id=entry["imported_id"],
                pinned=entry["pinned"],
            )
            for entry in entries
        ),
        sizes=tuple(entry["size"] for entry in entries),
        erased_at=row["erased_at"],
    )


def _policy(raw: str | None) -> RetentionPolicy | None:
    return None if raw is None else RetentionPolicy(**orjson.loads(raw))
