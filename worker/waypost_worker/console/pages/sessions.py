"""The contents of session pages. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from waypost.model.checkpoint import Checkpoint
from waypost.model.index import Entry
from waypost.model.retention import RetentionPolicy
from waypost.model.times import from_micros
from waypost.reader.pages import SessionInfo
from waypost_worker.console.pages.timeline import Timeline, timeline
from waypost_worker.operations.differences import Change, TextLine, changed_lines, contents, differences
from waypost_worker.operations.stored_session import FORKED_FROM, StoredSession

_LONGEST_PATH: Final = 1000
#: Characters of changed strings that are compared by line.
_MOST_TEXT: Final = 200_000


@dataclass(frozen=True, slots=True)
class SessionRow:
    """Session in a list."""

    session_id: str
    latest_name: str | None
    latest_number: int | None
    kept: int
    made: int
    last_activity: datetime
    rejected: int
    erased: bool = False


@dataclass(frozen=True, slots=True)
class SessionList:
    """Page of sessions. ``looked_at`` is how many sessions were examined, if a filter needs their checkpoints."""

    rows: tuple[SessionRow, ...]
    cursor: str | None
    looked_at: int | None = None


def session_rows(page: Sequence[SessionInfo], details: Mapping[str, Any]) -> list[SessionRow]:
    """Return the sessions that match, with their details by id. One that was made meanwhile has none yet."""
    return [
        SessionRow(
            info.session_id,
            found["latest_name"],
            found["latest_number"],
            info.checkpoint_count,
            info.last_number,
            info.last_recorded_at,
            found["rejected"],
            info.erased_at is not None,
        )
        for info in page
        if (found := details.get(info.session_id)) is not None and found["matches"]
    ]


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """Checkpoint in a session's table."""

    number: int
    name: str
    timestamp: datetime
    recorded_at: datetime
    size: int
    pinned: bool
    imported_id: str | None
    metadata: dict[str, Any] | None
    gone_before: int


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Session with one page of its checkpoints, newest first. ``before`` is where the next page starts."""

    session_id: str
    partition: int
    position: int
    next_offset: int
    kept: int
    made: int
    pins: int
    policy: RetentionPolicy
    own_policy: bool
    first_recorded_at: datetime
    last_recorded_at: datetime
    rejected: int
    rows: tuple[CheckpointRow, ...]
    before: int | None
    timeline: Timeline | None
    erased_at: datetime | None = None

    @property
    def removed(self) -> int:
        """The number of removed checkpoints."""
        return self.made - self.kept


def session_page(
    session: StoredSession,
    before: int | None,
    limit: int,
    metadata: Mapping[int, dict[str, Any]],
    rejected: int,
) -> SessionPage:
    """Return the page with the checkpoints below ``before``."""
    listed = shown_entries(session, before, limit)
    sizes = dict(zip((entry.number for entry in session.entries), session.sizes, strict=True))
    previous = {
        entry.number: earlier.number
        for earlier, entry in zip(session.entries, session.entries[1:], strict=False)
    }
    rows = tuple(
        CheckpointRow(
            entry.number,
            entry.name,
            from_micros(entry.taken_at),
            from_micros(entry.recorded_at),
            sizes[entry.number],
            entry.pinned,
            entry.imported_id,
            metadata.get(entry.number),
            entry.number - previous.get(entry.number, 0) - 1,
        )
        for entry in listed
    )
    more = bool(rows) and session.entries[0].number < rows[-1].number
    return SessionPage(
        session.session_id,
        session.partition,
        session.last_position,
        session.next_offset,
        len(session.entries),
        session.counter,
        sum(entry.pinned for entry in session.entries),
        session.policy,
        session.own_policy,
        session.first_recorded_at,
        session.last_recorded_at,
        rejected,
        rows,
        rows[-1].number if more else None,
        timeline(session.entries),
        session.erased_at,
    )


def shown_entries(session: StoredSession, before: int | None, limit: int) -> list[Entry]:
    """Return the newest entries below ``before``, newest first."""
    below = [entry for entry in session.entries if before is None or entry.number < before]
    return below[-limit:][::-1]


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Checkpoint with where it comes from. ``before`` and ``after`` are the numbers of its neighbors."""

    checkpoint: Checkpoint
    partition: int
    position: int
    command_id: str | None
    before: int | None
    after: int | None

    @property
    def forked_from(self) -> str | None:
        """The checkpoint that a fork began with."""
        found = self.checkpoint.metadata.get(FORKED_FROM)
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Difference:
    """The changes between two checkpoints. ``equal`` lists the top-level keys of data that did not change.

    ``lines`` has for each change the lines of a text that changed, and none for another value.
    """

    before: Checkpoint
    after: Checkpoint
    changes: tuple[Change, ...]
    equal: tuple[str, ...]
    more: bool
    lines: tuple[tuple[TextLine, ...], ...] = ()


def difference(before: Checkpoint, after: Checkpoint, most: int) -> Difference:
    """Compare two checkpoints; at most ``most`` changes are listed, and ``more`` says that there are others."""
    old, new = contents(before), contents(after)
    changes = differences(old, new, most=most + 1, longest_path=_LONGEST_PATH)
    changed = {change.path.split("/")[2] for change in changes if change.path.startswith("/data/")}
    equal = [
        key
        for key in new["data"]
        if key in old["data"] and key.replace("~", "~0").replace("/", "~1") not in changed
    ]
    more = len(changes) > most
    # Values that were not compared may differ as well.
    listed = tuple(changes[:most])
    return Difference(before, after, listed, () if more else tuple(equal), more, _lines(listed))


def _lines(changes: Sequence[Change]) -> tuple[tuple[TextLine, ...], ...]:
    """Return the lines of changed strings, up to what can be shown in reasonable time."""
    lines: list[tuple[TextLine, ...]] = []
    looked_at = 0
    for change in changes:
        found = tuple(changed_lines(change)) if looked_at < _MOST_TEXT else ()
        if found:
            looked_at += len(change.before) + len(change.after)
        lines.append(found)
    return tuple(lines)
