"""Results as the tail shows them, and which of them somebody wants to see. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from waypost.subscriber.events import Event
from waypost.wire.event_types import RESULT_TYPES, EventType
from waypost_worker.operations.results import about, short

#: A takeover does not answer a command.
KINDS: Final = tuple(dict.fromkeys(short(kind) for kind in RESULT_TYPES if kind != EventType.ACQUIRED))
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class TailFilter:
    """Conditions that an event must match; an empty one matches everything."""

    session: str = ""
    name: str = ""
    kind: str = ""

    def wants(self, event: Event) -> bool:
        """Return whether to show an event."""
        return (
            (not self.session or event.session_id == self.session)
            and (not self.name or event.name == self.name)
            and (not self.kind or short(event.type) == self.kind)
        )


@dataclass(frozen=True, slots=True)
class TailRow:
    """Result in the tail. ``place`` is where it is in the results topic."""

    place: str
    time: datetime | None
    kind: str
    session_id: str | None
    subject: str | None
    number: int | None
    about: str


def tail_row(event: Event, with_data: bool) -> TailRow:
    """Return a result for the tail. Without data, the reason of a rejection is omitted, because it may quote data."""
    kind = short(event.type)
    said = _about(event) if with_data or kind != "rejected" else str(_body(event).get("code", ""))
    return TailRow(
        place_of(event),
        event.time,
        kind,
        event.session_id,
        event.subject,
        _number(event.subject, event.session_id),
        said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…",
    )


def place_of(event: Event) -> str:
    """Return where an event is, as browsers say where they stopped."""
    return f"{event.partition}:{event.offset}"


def _about(event: Event) -> str:
    try:
        return about(event.type, event.body)
    except (ValueError, TypeError, KeyError, AttributeError):
        return "(not a result that this version can read)"


def _body(event: Event) -> dict[str, Any]:
    try:
        return event.body
    except (ValueError, TypeError):
        return {}


def _number(subject: str | None, session_id: str | None) -> int | None:
    if subject is None or session_id is None or not subject.startswith(f"{session_id}:"):
        return None
    digits = subject[len(session_id) + 1 :]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None
