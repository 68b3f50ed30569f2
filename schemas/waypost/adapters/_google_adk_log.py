"""Read the records of the ADK's sessions and states: which events count, and what state follows from them. Pure.

An event names the record that it follows. If several follow the same one, the first in the log counts, and the others
never do, for any reader. So the log decides which writer was stale, and no clock is involved.

The changes of an event to the state of its app and its user are stored after it, in separate sessions. If a writer is
killed before it stores them, the next process that gets the session stores them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from google.adk.sessions import State
from typing_extensions import override

from waypost.adapters.loose_json import value_of
from waypost.adapters.records import Row

CREATED: Final = "session"
EVENT: Final = "event"
DELETED: Final = "deleted"
STATE: Final = "state"
SHARED: Final = "shared"
EVENTS: Final = "events"
_EVENTS: Final = 1_000  # in a summary


class Marker(NamedTuple):
    """The records that a session object was read from: the number of its newest record, and the number and tag of the
    one to follow.

    ``born`` is the tag of the record that created the session, since one with the same id may have been deleted.
    """

    last: int
    number: int
    tag: str
    born: str

    @classmethod
    def parsed(cls, text: str | None) -> Self | None:
        """Return the marker that a session object carries, or None if it has none of this adapter's."""
        match (text or "").split("/"):
            case [last, number, str(tag), str(born)] if last.isdecimal() and number.isdecimal():
                return cls(int(last), int(number), tag, born)
        return None

    @override
    def __str__(self) -> str:
        return f"{self.last}/{self.number}/{self.tag}/{self.born}"


@dataclass(slots=True)
class SessionLog:
    """The content of a session's records: when it was created, and its events. ``created`` is None if it is deleted."""

    created: Row | None = None
    events: list[Row] = field(default_factory=list)
    last: int = 0  # the number of the newest record of any kind
    orphan: Row | None = None  # an event whose predecessor is gone, for any reason

    @classmethod
    def read(cls, rows: Iterable[Row]) -> Self:
        """Return what records say, which come oldest first."""
        log = cls()
        seen: set[str] = set()  # since the session was created
        deleted = False
        for row in rows:
            log.last = row.number
            tag, after, born = (row.metadata.get(key) for key in ("tag", "after", "born"))
            if not isinstance(tag, str):
                continue  # of a stranger
            if row.name == DELETED:
                deleted, log.created, log.events, log.orphan = True, None, [], None
            elif row.name == CREATED and log.created is None:
                log.created, seen = row, {tag}
            elif row.name == EVENT and log.created is None and not deleted:
                log.orphan = log.orphan or row
            elif row.name == EVENT and log.created is not None and born == log.born:
                if after == log.head:
                    log.events.append(row)
                elif after not in seen:
                    log.orphan = log.orphan or row
                seen.add(tag)
        return log

    @property
    def born(self) -> str | None:
        """The tag of the record that created the session."""
        return None if self.created is None else self.created.metadata["tag"]

    @property
    def newest(self) -> Row | None:
        """The newest record that counts."""
        return self.events[-1] if self.events else self.created

    @property
    def head(self) -> str | None:
        """The tag that the next event has to follow."""
        return None if self.newest is None else self.newest.metadata["tag"]

    @property
    def marker(self) -> Marker:
        """The marker of a session object that is read from here."""
        newest = 0 if self.newest is None else self.newest.number
        return Marker(self.last, newest, self.head or "", self.born or "")

    @property
    def last_update_time(self) -> float:
        """When the session was created or got its newest event, as the ADK says."""
        return 0.0 if self.newest is None else taken_at(self.newest)

    def follower(self, tag: str) -> Row | None:
        """Return the event that follows the record with this tag, if there is one."""
        return next((row for row in self.events if row.metadata["after"] == tag), None)

    def holds(self, tag: str) -> bool:
        """Tell whether a record counts."""
        return self.created is not None and any(
            row.metadata["tag"] == tag for row in (self.created, *self.events)
        )

    def state(self) -> dict[str, Any]:
        """Return the state of the session itself: what it was created with, and what its events changed."""
        if self.created is None:
            return {}
        state = dict(_object(self.created, STATE))
        for row in self.events:
            if row.metadata.get("delta"):
                state.update(_changes(row)["session"])
        return state

    def shared(self) -> dict[str, dict[str, Any]]:
        """Return what the newest record changes of the state of the app and the user."""
        if self.newest is None or self.newest.metadata.get("shared") is not True:
            return {}
        if self.newest is self.created:
            stored = _object(self.created, SHARED)
            return {key: stored[key] for key in ("app", "user") if isinstance(stored.get(key), dict)}
        return _changes(self.newest)


def _changes(row: Row) -> dict[str, dict[str, Any]]:
    actions = _object(row, EVENT).get("actions")
    delta = actions.get("state_delta") if isinstance(actions, dict) else None
    return scoped(delta if isinstance(delta, dict) else {})


def taken_at(row: Row) -> float:
    """Return the time of an event, or of a session's creation, in seconds by the clock of its writer."""
    at = row.metadata.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


@dataclass(slots=True)
class SharedState:
    """The state of an app or a user, and the events it follows from. Each counts once, no matter which process stored
    its change.

    ``events`` has the tags of these events, and when Kafka got their changes, in seconds. Of older ones than ``since``
    it may have lost some.
    """

    values: dict[str, Any] = field(default_factory=dict)
    events: dict[str, float] = field(default_factory=dict)
    since: float = -math.inf

    @classmethod
    def read(cls, rows: Iterable[Row]) -> Self:
        """Return what records say, oldest first: the widest summary, and the changes after what it covers."""
        found, changes, covered = cls(), [], 0
        for row in rows:
            covers = row.metadata.get("covers")
            if row.name == STATE and type(covers) is not int:
                changes.append(row)
            elif row.name == STATE and type(covers) is int and covers >= covered:
                events = {tag: at for tag, at in _object(row, EVENTS).items() if isinstance(at, int | float)}
                found, covered = cls(dict(_object(row, STATE)), events), covers
        if len(found.events) >= _EVENTS:
            found.since = min(found.events.values())
        for row in changes:
            event = row.metadata.get("event")
            if row.number > covered and isinstance(event, str) and event not in found.events:
                found.values.update(_object(row, STATE))
                found.events[event] = row.recorded_at.timestamp()
        return found

    def newest_events(self) -> dict[str, float]:
        """Return the events that a summary lists."""
        return dict(list(self.events.items())[-_EVENTS:])

    def lacks(self, row: Row) -> bool:
        """Tell whether the change of a record's event is surely missing."""
        return row.metadata["tag"] not in self.events and row.recorded_at.timestamp() > self.since


def scoped(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parts of a state that belong to the app, the user and the session. Temporary state is left out."""
    parts: dict[str, dict[str, Any]] = {"app": {}, "user": {}, "session": {}}
    for key, value in state.items():
        if key.startswith(State.APP_PREFIX):
            parts["app"][key.removeprefix(State.APP_PREFIX)] = value
        elif key.startswith(State.USER_PREFIX):
            parts["user"][key.removeprefix(State.USER_PREFIX)] = value
        elif not key.startswith(State.TEMP_PREFIX):
            parts["session"][key] = value
    return parts


def _object(row: Row, member: str) -> dict[str, Any]:
    """Return an object in a record's data. Other writers to the topic can put in any other value."""
    try:
        found = value_of(member, row.data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
