"""CloudEvents 1.0 <-> Kafka record, in both content modes of the Kafka protocol binding 1.0.

Reading is forgiving about what the contract leaves open (extension attributes, header order) and exact about
the rest. What is wrong with a record is said in an InvalidCommandError with code ``invalid-envelope``.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.limits import (
    MAX_COMMAND_ID,
    MAX_SESSION_ID,
    MAX_SOURCE,
    MAX_TYPE,
    check_json,
    text_problem,
)
from waypost.model.times import clamp_micros, format_micros, parse_micros
from waypost.wire.raw_json import members

STRUCTURED: Final = b"application/cloudevents+json"
JSON: Final = b"application/json"
Headers = Sequence[tuple[str, bytes]]


class KafkaRecord(Protocol):
    """What this module needs of a record, as aiokafka gives it. ``timestamp`` in milliseconds."""

    @property
    def offset(self) -> int:
        """Position in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    @property
    def key(self) -> bytes | None:
        """The session id, UTF-8."""
        ...

    @property
    def value(self) -> bytes | None:
        """The body."""
        ...

    @property
    def headers(self) -> Headers:
        """Names and raw values."""
        ...


class Envelope(NamedTuple):
    """The attributes of a command and its body. Times in microseconds.

    ``session_id`` is None where the record has no key; only ``waypost.defaults.configure`` may lack one.
    """

    id: str
    type: str
    session_id: str | None
    taken_at: int
    recorded_at: int
    traceparent: bytes | None
    body: bytes


def _headers(record: KafkaRecord) -> dict[str, bytes]:
    # A header may have a null value; it then says no more than one that is absent.
    return {name: value for name, value in record.headers if value is not None}


def recorded_at(record: KafkaRecord) -> int:
    """The broker's clock for this record, in microseconds."""
    return clamp_micros(record.timestamp * 1000)


def open_envelope(record: KafkaRecord) -> Envelope:
    """Read a command record, or raise InvalidCommandError (``invalid-envelope``)."""
    value = record.value
    if value is None:
        raise _invalid("the record has a null value: send the command's JSON body")
    return _open_plain(record, value) or _open_any(record, value)


# A named tuple's own __new__ is a function of Python's: this is what it calls, at half the price.
_new: Final = tuple.__new__
_LONGEST_KEY: Final = 4 * MAX_SESSION_ID  # bytes
# The headers of a command in binary mode, in the order in which command_headers writes them.
_ORDER: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")


def _open_plain(record: KafkaRecord, value: bytes) -> Envelope | None:
    """The envelope of a record as the publisher writes it; None for anything else, be it right or wrong."""
    headers, key = record.headers, record.key
    traceparent = None
    if len(headers) == 7:
        last, traceparent = headers[6]
        if last != "traceparent" or not traceparent:
            return None
        headers = headers[:6]
    elif len(headers) != 6:
        return None
    (n0, version), (n1, identifier), (n2, source), (n3, kind), (n4, time), (n5, content) = headers
    if (n0, n1, n2, n3, n4, n5) != _ORDER or key is None or not identifier or not time:
        return None
    # What is too long to be right is not kept.
    if len(key) > _LONGEST_KEY or len(source or b"") > 256 or len(kind or b"") > 256:
        return None
    command_type, session_id = _plain_kind(version, source, kind, content), _plain_session(key)
    if command_type is None or session_id is None:
        return None
    try:
        command_id = identifier.decode()
        taken_at = parse_micros(time.decode())
    except ValueError:
        return None
    if len(command_id) > MAX_COMMAND_ID or not command_id.isprintable():
        return None
    made = (command_id, command_type, session_id, taken_at, recorded_at(record), traceparent, value)
    return _new(Envelope, made)


# Sessions, sources and types come again and again.


@lru_cache(maxsize=16_384)
def _plain_session(raw: bytes) -> str | None:
    return _text(raw, MAX_SESSION_ID)


@lru_cache(maxsize=1024)
def _plain_kind(version: bytes, source: bytes | None, kind: bytes | None, content: bytes) -> str | None:
    """The command type, if the attributes that all records of an agent share are those of a plain command."""
    if version != b"1.0" or content != JSON or source is None or kind is None:
        return None
    return _text(kind, 256) if _text(source, 256) is not None else None


def _text(raw: bytes, longest: int) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text_problem(text, longest) is None else None


def _open_any(record: KafkaRecord, value: bytes) -> Envelope:
    headers = _headers(record)
    content_type = headers.get("content-type")
    if content_type is not None and content_type.startswith(STRUCTURED):
        return _open_structured(record, value, headers)
    if content_type is not None and not content_type.startswith(JSON):
        raise _invalid(f"content-type {_shown(content_type)} is not application/json")
    if not headers:
        raise _invalid("the record has no headers: send ce_specversion, ce_id, ce_source and ce_type")
    attributes = {name[3:]: raw for name, raw in headers.items() if name[:3] == "ce_"}
    return _envelope(record, attributes, value, headers.get("traceparent"))


def _envelope(
    record: KafkaRecord, attributes: Mapping[str, bytes], body: bytes, traceparent: bytes | None
) -> Envelope:
    if attributes.get("specversion") != b"1.0":
        if "specversion" not in attributes:
            raise _invalid("ce_specversion is missing: send '1.0'")
        raise _invalid(f"ce_specversion {_shown(attributes['specversion'])} is not '1.0'")
    identifier = _attribute(attributes, "id", MAX_COMMAND_ID)
    _attribute(attributes, "source", MAX_SOURCE)
    command_type = _attribute(attributes, "type", MAX_TYPE)
    at = recorded_at(record)
    taken_at = at
    if (time := attributes.get("time")) is not None:
        try:
            taken_at = parse_micros(time.decode())
        except ValueError as error:
            raise _invalid(f"ce_time: {error}") from None
    return Envelope(identifier, command_type, session_of(record), taken_at, at, traceparent, body)


def _open_structured(record: KafkaRecord, value: bytes, headers: Mapping[str, bytes]) -> Envelope:
    try:
        event = check_json(value, around=4)
        if not isinstance(event, dict):
            raise _invalid("a structured CloudEvent must be a JSON object")
        raw = members(value)
    except InvalidCommandError as error:
        raise _invalid(f"the structured CloudEvent is unusable: {error.message}") from None
    if "data" not in event:
        raise _invalid("the structured CloudEvent has no data: put the command's body there")
    attributes = {name: text.encode() for name, text in event.items() if isinstance(text, str)}
    traceparent = attributes.get("traceparent") or headers.get("traceparent")
    return _envelope(record, attributes, raw["data"].encode(), traceparent)


def _attribute(attributes: Mapping[str, bytes], name: str, longest: int) -> str:
    raw = attributes.get(name)
    if raw is None:
        raise _invalid(f"ce_{name} is missing")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _invalid(f"ce_{name} is not UTF-8") from None
    if (problem := text_problem(text, longest)) is not None:
        raise _invalid(f"ce_{name} {problem}")
    return text


def session_of(record: KafkaRecord) -> str | None:
    """The session that a record's key names; InvalidCommandError if it is no session id."""
    if record.key is None:
        return None
    try:
        session_id = record.key.decode()
    except UnicodeDecodeError:
        raise _invalid("the key is not UTF-8: send the session id as UTF-8 text") from None
    if (problem := text_problem(session_id, MAX_SESSION_ID)) is not None:
        raise _invalid(f"the key must be a session id, but it {problem}")
    return session_id


def glimpse(record: KafkaRecord) -> tuple[str | None, str | None]:
    """The command id and session id of a record that is refused, each None where it cannot be told."""
    headers = _headers(record)
    raw = headers.get("ce_id")
    if raw is None and record.value and headers.get("content-type", b"").startswith(STRUCTURED):
        try:
            event = orjson.loads(record.value)
            found = event.get("id") if isinstance(event, dict) else None
            raw = found.encode() if isinstance(found, str) else None
        except ValueError:
            raw = None
    command_id = None
    if raw is not None:
        try:
            command_id = raw.decode()
        except UnicodeDecodeError:
            command_id = None
        if command_id is not None and text_problem(command_id, MAX_COMMAND_ID) is not None:
            command_id = None
    try:
        return command_id, session_of(record)
    except InvalidCommandError:
        return command_id, None


def command_headers(
    command_id: str, source: bytes, command_type: bytes, time: bytes, traceparent: bytes | None = None
) -> list[tuple[str, bytes]]:
    """The headers of a command in binary mode; ``time`` is RFC 3339 text."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", command_id.encode()),
        ("ce_source", source),
        ("ce_type", command_type),
        ("ce_time", time),
        ("content-type", JSON),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def structured_event(attributes: Mapping[str, str], taken_at: int, body: bytes) -> bytes:
    """A command in structured mode: the value of a record with content-type application/cloudevents+json."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        **attributes,
        "time": format_micros(taken_at),
        "datacontenttype": "application/json",
        "data": orjson.Fragment(body),
    }
    return orjson.dumps(event)


def _invalid(message: str) -> InvalidCommandError:
    return InvalidCommandError("invalid-envelope", message)


def _shown(raw: bytes) -> str:
    return repr(raw[:64].decode(errors="backslashreplace"))
