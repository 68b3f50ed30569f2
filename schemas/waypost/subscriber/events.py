"""Result events as subscribers see them: headers are decoded immediately, the body when it is first used."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, wraps
from inspect import isawaitable
from typing import Any, Final, cast

import orjson

from waypost.arguments import require_callable, require_whole
from waypost.deprecation import deprecated
from waypost.errors import EncryptionError, InvalidArgumentError, quoted
from waypost.model.checkpoint import Checkpoint
from waypost.model.limits import canonical_metadata, require_sendable
from waypost.model.times import from_micros, parse_micros
from waypost.wire.event_types import RESULT_TYPES, EventType
from waypost.wire.id_lists import expand_ids
from waypost.wire.raw_json import members
from waypost.wire.topics import CommandPosition

_TYPE: Final = "ce_type"
_SHORT: Final = {kind: kind.removeprefix("waypost.") for kind in RESULT_TYPES}


@dataclass(frozen=True)
class Event:
    """Result event. Headers are decoded immediately; the body is parsed when it is first used.

    ``subject`` is the checkpoint or session that the event is about, ``name`` the checkpoint's name if there is one,
    and ``time`` the broker's time of the command. ``topic``, ``partition`` and ``offset`` are the place of the event
    itself; ``key``, ``headers`` and ``raw_body`` are the record as it was read.

    If the subscriber has a codec, ``plain_body`` is the body with decrypted data, or ``decryption_error`` says why
    there is none. ``body`` and ``checkpoint`` then raise this error.
    """

    id: str
    type: str
    session_id: str | None
    subject: str | None
    name: str | None
    time: datetime | None
    topic: str
    partition: int
    offset: int
    traceparent: str | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    raw_body: bytes
    plain_body: bytes | None = None
    decryption_error: EncryptionError | None = None

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Event {self.type!r} of {self.subject}{name} at {self.topic}/{self.partition}/{self.offset}>"

    @cached_property
    def body(self) -> dict[str, Any]:
        """Body of the result, parsed. Long lists of ids, which a result holds as ranges, are expanded."""
        if self.decryption_error is not None:
            raise self.decryption_error
        return self._expanded

    @cached_property
    def _expanded(self) -> dict[str, Any]:
        return expand_ids(orjson.loads(self.raw_body if self.plain_body is None else self.plain_body))

    @property
    def removed(self) -> list[str]:
        """Ids of the checkpoints that retention or a rollback removed with this command."""
        removed: list[str] = self._expanded.get("removed", [])
        return removed

    @property
    def command_id(self) -> str | None:
        """Id of the command, None if it could not be read."""
        identifier: str | None = self._expanded["command"]["id"]
        return identifier

    @property
    def token(self) -> CommandPosition:
        """Position of the command, for :meth:`waypost.Reader.wait_for`."""
        command = self._expanded["command"]
        return CommandPosition(command["partition"], command["offset"])

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """Checkpoint of a created or rolled_back event, with its data byte for byte; None for other events."""
        found = self.body.get("checkpoint")
        if found is None:
            return None
        text = self.raw_body if self.plain_body is None else self.plain_body
        raw = members(members(text)["checkpoint"])["data"]
        return Checkpoint(
            id=found["id"],
            name=found["name"],
            timestamp=from_micros(parse_micros(found["timestamp"])),
            recorded_at=from_micros(parse_micros(found["recorded_at"])),
            raw_data=raw,
            raw_metadata=canonical_metadata(found["metadata"]),
            pinned=found["pinned"],
            imported_id=found.get("imported_id"),
        )


def read_event(record: Any) -> Event:
    """The event in a record of the results topic."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    return Event(
        id=headers.get("ce_id", ""),
        type=headers.get(_TYPE, ""),
        session_id=headers.get("ce_sessionid"),
        subject=headers.get("ce_subject"),
        name=headers.get("ce_checkpointname"),
        time=_time(headers.get("ce_time")),
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        traceparent=headers.get("traceparent"),
        key=record.key,
        headers=tuple(record.headers),
        raw_body=record.value,
    )


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return from_micros(parse_micros(text))
    except ValueError:
        return None


class EventFilter:
    """The filter for records, which uses only their headers.

    ``types`` are complete (``waypost.checkpoint.created``), without the prefix, or the last word if that names only
    one. A ValueError for an unknown one lists them all. Without ``types``, all are wanted except the fence records of
    owners.
    """

    def __init__(
        self,
        names: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
    ) -> None:
        self._names = _encoded(names)
        self._types = {
            kind.encode()
            for kind in (
                set(RESULT_TYPES) - {EventType.ACQUIRED}
                if types is None
                else map(_whole_type, _listed(types))
            )
        }
        self._sessions = _encoded(sessions)

    def wants(self, headers: Iterable[tuple[str, bytes]]) -> bool:
        """Return whether a record with these headers is wanted."""
        found = dict(headers)
        if found.get(_TYPE) not in self._types:
            return False
        if self._names is not None and found.get("ce_checkpointname") not in self._names:
            return False
        return self._sessions is None or found.get("ce_sessionid") in self._sessions


def _listed(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidArgumentError(f"pass a list of strings, not the string {quoted(texts)}")
    if not isinstance(texts, Iterable):
        raise InvalidArgumentError(f"pass a list of strings, not {quoted(texts)}")
    listed = list(texts)
    for text in listed:
        if not isinstance(text, str):
            raise InvalidArgumentError(f"pass a list of strings; {quoted(text)} is not a string")
        require_sendable("a filter", text)
    return listed


def _encoded(texts: Iterable[str] | None) -> set[bytes] | None:
    return None if texts is None else {text.encode() for text in _listed(texts)}


def _whole_type(given: str) -> str:
    for kind, short in _SHORT.items():
        if given in (kind, short):
            return kind
    named = [kind for kind in RESULT_TYPES if kind.rpartition(".")[2] == given]
    if len(named) != 1:
        raise InvalidArgumentError(
            f"{quoted(given)} is not a result type; there are {', '.join(_SHORT.values())}"
        )
    return named[0]


class Deduplicator:
    """Memory of the last ``size`` event ids, to recognize repeated events.

    In a loop, use ``if deduplicator.check_and_add(event): continue``; for :meth:`waypost.Subscriber.run`,
    ``deduplicator.once(handler)``. Nothing is stored: if a repetition after a crash matters, write ``event.id`` in the
    transaction that handles the event.
    """

    def __init__(self, size: int = 100_000) -> None:
        require_whole("size", size, 0)
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Deduplicator with {len(self._ids)} of {self._size} ids>"

    def check_and_add(self, event: Event) -> bool:
        """Return whether the event's id was seen before, and remember it.

        The event is remembered immediately, even if you then fail to handle it. A handler that is retried needs
        :meth:`once`.
        """
        if not isinstance(event, Event):
            raise InvalidArgumentError(f"pass an event, not {quoted(event)}")
        if event.id in self._ids:
            return True
        self._ids[event.id] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return False

    @deprecated("check_and_add()")
    def seen(self, event: Event) -> bool:
        """Call :meth:`check_and_add`, the new name."""
        return self.check_and_add(event)

    def once(self, handler: Callable[[Event], Awaitable[None]]) -> Callable[[Event], Awaitable[None]]:
        """Return a handler that skips the events that ``handler`` has handled, except failed ones."""

        require_callable("the handler", handler)

        async def note(event: Event, handling: Awaitable[None]) -> None:
            await handling
            self.check_and_add(event)

        @wraps(handler)
        def handle(event: Event) -> Awaitable[None]:
            if event.id in self._ids:
                return _nothing()
            handling: object = handler(event)
            # If the handler is not an async function, the caller rejects it by name and does not call it again.
            return note(event, handling) if isawaitable(handling) else cast("Awaitable[None]", handling)

        return handle


async def _nothing() -> None:
    """A handler's work on an event that was handled before."""
