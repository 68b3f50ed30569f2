"""Decryption of events, for a subscriber with a codec."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from waypost.errors import EncryptionError, KeyStoreError, KeyWrappingError
from waypost.subscriber.events import Event
from waypost.wire.event_types import EventType
from waypost.wire.raw_json import member_spans

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec, Found

_WITH_DATA: Final = (EventType.CREATED, EventType.ROLLED_BACK)


async def decrypted_event(event: Event, codec: "Codec | None") -> Event:
    """Return an event whose data can be read, or raises an error where it is looked at.

    Data that can't be decrypted, as that of an erased session, must not keep other events from coming.

    Raises:
        KeyStoreError: The key store can't be used now.
        KeyWrappingError: A key can't be unwrapped now.
    """
    if codec is None or event.type not in _WITH_DATA:
        return event
    raw = event.raw_body
    try:
        start, end = _span(raw, 0, len(raw), "checkpoint")
        first, last = _span(raw, start, end, "data")
        body = orjson.loads(raw)
        found = _found(event, body, raw[first:last])
    except (ValueError, LookupError, TypeError, AttributeError):
        # Not a result as workers write it.
        return replace(
            event, decryption_error=EncryptionError(f"{event!r} is not a result that can be decrypted")
        )
    try:
        (plain,) = await codec.decrypt([found])
    except (KeyStoreError, KeyWrappingError):
        raise
    except EncryptionError as error:
        return replace(event, decryption_error=error)
    return replace(event, plain_body=raw[:first] + plain + raw[last:])


def _found(event: Event, body: dict[str, Any], data: bytes) -> "Found":
    from waypost.encryption.codec import Found

    checkpoint = body["checkpoint"]
    command_id = body["command"]["id"] if event.type == EventType.CREATED else None
    session_id, identifier = str(body["session_id"]), str(checkpoint["id"])
    if identifier.rpartition(":")[0] != session_id:
        raise ValueError("a checkpoint of another session")
    return Found(session_id, str(checkpoint["name"]), command_id, data, f"checkpoint {identifier!r}")


def _span(raw: bytes, start: int, end: int, name: str) -> tuple[int, int]:
    """Return where the value of an object's member stands."""
    for key, first, last in member_spans(raw[start:end]):
        if key == name:
            return start + first, start + last
    raise LookupError(name)
