"""Decisions read back from results: enough to evolve sessions, except for the data of imports. Pure.

The model's own ``evolve`` carries out the decisions. No rules are applied here, because results contain the outcome of
every rule. Anything that a result does not contain is counted as lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import orjson

from waypost.model.checkpoint import own_number
from waypost.model.commands import Clear, Command
from waypost.model.decisions import (
    Accepted,
    AuthorityConfigured,
    Cleared,
    Configured,
    Created,
    DefaultsConfigured,
    Deleted,
    Erased,
    Expired,
    Pinned,
    RolledBack,
    Skipped,
    Unpinned,
)
from waypost.model.index import Entry, Session
from waypost.model.limits import canonical_metadata
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.model.times import parse_micros, to_micros
from waypost.subscriber.events import Event, read_event
from waypost.wire.event_types import EventType
from waypost.wire.raw_json import members
from waypost.wire.signing import decode_key
from waypost_worker.partition.batch import SKIPPED, ChangeCollector
from waypost_worker.partition.encode import Content
from waypost_worker.partition.ports import FetchedResult

_ABOUT: Final[dict[str, type[Pinned | Unpinned | Deleted]]] = {
    EventType.PINNED: Pinned,
    EventType.UNPINNED: Unpinned,
    EventType.DELETED: Deleted,
}
_CREATED: Final = EventType.CREATED.value
_DEFAULTS_CONFIGURED: Final = EventType.DEFAULTS_CONFIGURED.value
_AUTHORITY_CONFIGURED: Final = EventType.AUTHORITY_CONFIGURED.value
_SKIPPED: Final = EventType.SKIPPED.value
_DUPLICATE: Final = EventType.DUPLICATE.value
_KEPT: Final = EventType.KEPT.value
_REJECTED: Final = EventType.REJECTED.value
_MICROS: Final = 1_000_000


@dataclass(slots=True)
class Lost:
    """Data that is not in results. ``imported`` are ids of checkpoints whose data only the import command had;
    ``refused`` counts rejected commands, of which only the reason is known; ``unknown`` counts changes to checkpoints
    that were created before the first result that is left.
    """

    imported: dict[str, None] = field(default_factory=dict)
    refused: int = 0
    unknown: int = 0


class ResultFold(ChangeCollector):
    """Takes results in command order and collects what they change."""

    def __init__(self, sessions: dict[str, Session], state: PartitionState, lost: Lost) -> None:
        super().__init__()
        self._sessions = sessions
        self._state = state
        self._lost = lost

    def add(self, event: Event) -> None:
        """One result; fence records must be left out."""
        kind, body = event.type, event.body
        if kind == _REJECTED:
            self._lost.refused += 1
            if body["code"] == SKIPPED:
                self.note_skipped(self._state, body["command"]["offset"])
            return
        if kind in (_DUPLICATE, _KEPT):
            return
        at = to_micros(event.time) if event.time is not None else 0
        command = Command(event.command_id, body["command"]["offset"], at, at, Clear())
        if kind == _DEFAULTS_CONFIGURED:
            self.take_for_partition(self._state, command, DefaultsConfigured(_policy(body["policy"])))
            return
        if kind == _AUTHORITY_CONFIGURED:
            # The signed time is not in the result. The broker's is as late or later, unless clocks are wrong.
            key = None if body["key"] is None else decode_key(body["key"])
            self.take_for_partition(self._state, command, AuthorityConfigured(key))
            return
        if kind == _SKIPPED:
            self.take_for_partition(self._state, command, Skipped(body["offset"], body["reason"]))
            return
        session_id = body["session_id"]
        session = self._sessions.setdefault(session_id, Session(session_id))
        if kind == _CREATED:
            entry, content = _shown(session, event, command)
            removed = self._known(session, body["removed"], made=entry.number)
            self.take_created(session, command, Created(entry, removed), content)
            return
        self.take(session, command, self._decision(session, event, command))

    def _decision(self, session: Session, event: Event, command: Command) -> Accepted:
        body = event.body
        removed = self._known(session, body["removed"])
        match event.type:
            case kind if kind in _ABOUT:
                number = self._number(session, body["checkpoint_id"])
                if number in session.entries:
                    return _ABOUT[kind](number, tuple(one for one in removed if one != number))
                if event.type != EventType.DELETED or self._lost.imported.pop(body["checkpoint_id"], 0) == 0:
                    self._lost.unknown += 1
                # Nothing to change, but the session remembers that the command was seen.
                return RolledBack(number, removed)
            case EventType.ROLLED_BACK:
                entry, content = _shown(session, event, command)
                if entry.number not in session.entries:
                    # Imported, or made before the first result that is left, and shown here whole.
                    self._lost.imported.pop(body["checkpoint"]["id"], None)
                    self.take_created(session, command, Created(entry), content)
                return RolledBack(entry.number, removed)
            case EventType.CLEARED:
                return Cleared(removed)
            case EventType.IMPORTED:
                return Cleared(tuple(sorted({*removed, *self._imported(session, body)})))
            case EventType.EXPIRED:
                since, last = parse_micros(body["idle_since"]), parse_micros(body["last_recorded_at"])
                return Expired(since, last, removed, forgets=body["count"] == 0)
            case EventType.ERASED:
                return Erased(parse_micros(body["erased_at"]), tuple(session.live_in_order()))
            case EventType.CONFIGURED:
                return Configured(_policy(body["policy"]), removed)
        raise ValueError(f"unknown result type {event.type!r}")

    def _imported(self, session: Session, body: dict[str, Any]) -> list[int]:
        """The checkpoints of an import are lost, and any that it may have replaced can't be trusted. Return the removed
        numbers.
        """
        gone = []
        for identifier in body["ids"]:
            number = self._number(session, identifier)
            if number not in session.entries:
                self._lost.imported[identifier] = None
            elif body["replaced"] and number not in gone:
                self._lost.imported[identifier] = None
                gone.append(number)
        return gone

    def _known(
        self, session: Session, identifiers: Sequence[str], made: int | None = None
    ) -> tuple[int, ...]:
        """Those of the removed that are there; the others were made before the first result that is left."""
        numbers = [self._number(session, identifier) for identifier in identifiers]
        for identifier in identifiers:
            self._lost.imported.pop(identifier, None)
        return tuple(number for number in numbers if number in session.entries or number == made)

    def _number(self, session: Session, identifier: str) -> int:
        number = own_number(session.session_id, identifier)
        if number is None:
            raise ValueError(f"{identifier!r} is not a checkpoint of {session.session_id!r}")
        session.counter = max(session.counter, number)
        return number


def retold_event(partition: int, record: FetchedResult) -> Event:
    """A record of the results topic as an event; which topic it was does not matter here."""
    placed = SimpleNamespace(
        topic="",
        partition=partition,
        timestamp=0,
        offset=record.offset,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )
    return read_event(placed)


def _shown(session: Session, event: Event, command: Command) -> tuple[Entry, Content]:
    """The checkpoint in a result, its data to the byte."""
    body = event.body["checkpoint"]
    raw = members(members(event.raw_body)["checkpoint"])
    number = own_number(session.session_id, body["id"])
    if number is None:
        raise ValueError(f"{body['id']!r} is not a checkpoint of {session.session_id!r}")
    created = event.type == _CREATED
    entry = Entry(
        number=number,
        name=body["name"],
        taken_at=parse_micros(body["timestamp"]),
        recorded_at=parse_micros(body["recorded_at"]),
        position=command.position,
        command_id=command.id if created else None,
        imported_id=body.get("imported_id"),
        pinned=body["pinned"],
    )
    return entry, (raw["data"], canonical_metadata(orjson.loads(raw["metadata"])))


def _policy(body: dict[str, Any]) -> RetentionPolicy:
    age = body["max_age"]
    micros = None if age is None else round(age * _MICROS)
    encrypted = body.get("encrypted", False)
    return RetentionPolicy(
        body["max_checkpoints"], body["compress_after"], body["keep_recent"], micros, encrypted
    )
