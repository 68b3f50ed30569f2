"""CloudEvents 1.0 <-> Kafka record, in both content modes of the Kafka protocol binding 1.0.

Reading is forgiving about what the contract leaves open (extension attributes, header order) and exact about the rest.
An InvalidCommandError with code ``invalid-envelope`` reports an invalid record.

Anybody may write to the topic, and a compressed record of a kilobyte can hold a key or a header of many megabytes. So
the size of each part is checked before the part is looked at, and nothing that is copied into a result is unbounded.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.limits import (
    MAX_COMMAND_BYTES,
    MAX_COMMAND_ID,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_SESSION_ID,
    MAX_SOURCE,
    MAX_TYPE,
    text_problem,
)
from waypost.model.times import clamp_micros, parse_micros
from waypost.wire.raw_json import member_spans, repeated_key
from waypost.wire.traceparent import valid_traceparent

STRUCTURED: Final = b"application/cloudevents+json"
_BATCHED: Final = b"application/cloudevents-batch+json"
JSON: Final = b"application/json"
Headers = Sequence[tuple[str, bytes]]


class KafkaRecord(Protocol):
    """The parts of a record that this module needs, as aiokafka returns it. ``timestamp`` in milliseconds."""

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

    ``session_id`` is None if the record has no key; only commands about a whole partition may lack one. ``signature``
    is the attribute of that name as received; commands of sessions need none, and it may be left out.
    """

    id: str
    type: str
    session_id: str | None
    taken_at: int
    recorded_at: int
    traceparent: bytes | None
    body: bytes
    signature: bytes | None = None


def _headers(record: KafkaRecord) -> dict[str, bytes]:
    # A header may have a null value; it then says no more than one that is absent.
    return {name: value for name, value in record.headers if value is not None}


def recorded_at(record: KafkaRecord) -> int:
    """The broker's clock for this record, in microseconds."""
    return clamp_micros(record.timestamp * 1000)


def open_envelope(record: KafkaRecord) -> Envelope:
    """Read a command record, or raise InvalidCommandError (``invalid-envelope``, ``too-large``)."""
    value = record.value
    if value is None:
        raise _invalid("the record has a null value: send the command's JSON body")
    if len(value) > MAX_COMMAND_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"the record's value has {len(value)} bytes, at most {MAX_COMMAND_BYTES} are allowed: split an import "
            "into several commands",
        )
    return _open_plain(record, value) or _open_any(record, value)


# A named tuple's own __new__ is a function of Python's: this is what it calls, at half the price.
_new: Final = tuple.__new__
MAX_KEY_BYTES: Final = 4 * MAX_SESSION_ID
_LONGEST_ID: Final = 4 * MAX_COMMAND_ID
_LONGEST_OWN: Final = MAX_KEY_BYTES + _LONGEST_ID + 64  # with the time
_LONGEST_SHARED: Final = 512
_MOST_ATTRIBUTES: Final = 1000
_PARSED_AT_ONCE: Final = 64 * 1024
_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "time", "traceparent", "signature")
# The identity of a command, its time and its sender must not depend on which of two headers is read.
_ONCE: Final = frozenset(
    {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_signature", "content-type"}
)
# The headers of a command in binary mode, in the order in which command_headers writes them; and what two hold.
_PLAIN: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", b"1.0", JSON)


def _open_plain(record: KafkaRecord, value: bytes) -> Envelope | None:
    """Return the envelope of a record as the publisher writes it; None for anything else, valid or invalid."""
    headers, key = record.headers, record.key
    traceparent = None
    if len(headers) == 7:
        last, sent = headers[6]
        if last != "traceparent" or not sent or len(sent) > _LONGEST_SHARED:
            return None
        traceparent = valid_traceparent(sent)
        headers = headers[:6]
    elif len(headers) != 6:
        return None
    (n0, version), (n1, identifier), (n2, source), (n3, kind), (n4, time), (n5, content) = headers
    if (n0, n1, n2, n3, n4, n5, version, content) != _PLAIN or key is None:
        return None
    if not identifier or not source or not kind or not time:
        return None
    # A value that is too long to be valid is neither read nor kept.
    if len(key) + len(identifier) + len(time) > _LONGEST_OWN or len(source) + len(kind) > _LONGEST_SHARED:
        return None
    command_type, session_id = _plain_kind(source, kind), _plain_session(key)
    if command_type is None or session_id is None:
        return None
    try:
        command_id = identifier.decode()
        taken_at = parse_micros(time.decode())
    except ValueError:
        return None
    if len(command_id) > MAX_COMMAND_ID or not command_id.isprintable():
        return None
    made = (command_id, command_type, session_id, taken_at, recorded_at(record), traceparent, value, None)
    return _new(Envelope, made)


# The same sessions, sources and types occur repeatedly.


@lru_cache(maxsize=16_384)
def _plain_session(raw: bytes) -> str | None:
    return _text(raw, MAX_SESSION_ID)


@lru_cache(maxsize=1024)
def _plain_kind(source: bytes, kind: bytes) -> str | None:
    """The command type, if the attributes that all records of an agent share are those of a plain command."""
    return _text(kind, 256) if _text(source, 256) is not None else None


def _text(raw: bytes, longest: int) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if text_problem(text, longest) is None else None


def _open_any(record: KafkaRecord, value: bytes) -> Envelope:
    _check_headers(record.headers)
    headers = _headers(record)
    content_type = headers.get("content-type")
    media_type = _media_type(content_type)
    if media_type == STRUCTURED:
        return _open_structured(record, value, headers)
    if media_type == _BATCHED:
        raise _invalid(
            "the record is a batch of CloudEvents: send each event in a record of its own, with content-type "
            "application/cloudevents+json and its session's key"
        )
    if content_type is not None and media_type != JSON:
        raise _invalid(f"content-type {_shown(content_type)} is not application/json")
    if not headers:
        raise _invalid("the record has no headers: send ce_specversion, ce_id, ce_source and ce_type")
    attributes = {name[3:]: raw for name, raw in headers.items() if name[:3] == "ce_"}
    return _envelope(record, attributes, value, headers.get("traceparent"))


def _media_type(content_type: bytes | None) -> bytes | None:
    """Return the type without its parameters, in lower case: it is compared so (RFC 9110, 8.3.1)."""
    return None if content_type is None else content_type.partition(b";")[0].strip(b" \t").lower()


def _check_headers(headers: Headers) -> None:
    # A trace that is not valid is dropped, however long it is, and never makes a command invalid.
    size = sum([len(name) + len(value or b"") for name, value in headers if name != "traceparent"])
    if size > MAX_HEADERS_BYTES or len(headers) > MAX_HEADERS:
        raise _invalid(
            f"the record has {len(headers)} headers of {size} bytes, at most {MAX_HEADERS} of {MAX_HEADERS_BYTES} "
            "bytes together are allowed: put what belongs to the command into its body"
        )
    if (name := _contradictory(headers)) is not None:
        raise _invalid(f"the header {name} appears twice, with different values: send it once")


def _contradictory(headers: Headers) -> str | None:
    """Return a header of the envelope that has two values. A value that is repeated, or null, contradicts nothing."""
    found: dict[str, bytes] = {}
    for name, value in headers:
        if value is not None and name in _ONCE and found.setdefault(name, value) != value:
            return name
    return None


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
    traceparent = None if traceparent is None else valid_traceparent(traceparent)
    session_id, signature = session_of(record), attributes.get("signature")
    return Envelope(identifier, command_type, session_id, taken_at, at, traceparent, body, signature)


def _open_structured(record: KafkaRecord, value: bytes, headers: Mapping[str, bytes]) -> Envelope:
    # Here and not above: it loads simdjson, which publishers do not need.
    from waypost.wire.plain_json import check_object

    try:
        check_object(value, "the event", around=4)
        raw = _event_members(value)
    except InvalidCommandError as error:
        raise _invalid(f"the structured CloudEvent is unusable: {error.message}") from None
    if "data_base64" in raw and "data" not in raw:
        raise _invalid("the structured CloudEvent has data_base64: put the command's body into data, as JSON")
    if "data" not in raw:
        raise _invalid("the structured CloudEvent has no data: put the command's body there")
    attributes = {
        name: orjson.loads(raw[name]).encode() for name in _ATTRIBUTES if raw.get(name, b"").startswith(b'"')
    }
    traceparent = attributes.get("traceparent") or headers.get("traceparent")
    return _envelope(record, attributes, raw["data"], traceparent)


def _event_members(value: bytes) -> dict[str, bytes]:
    """Return the text of each member of a CloudEvent that is valid JSON."""
    raw: dict[str, bytes] = {}
    for name, start, end in member_spans(value):
        if name in raw:
            raise repeated_key(name)
        raw[name] = value[start:end]
        if len(raw) > _MOST_ATTRIBUTES:
            raise _invalid(f"it has more than {_MOST_ATTRIBUTES} attributes")
    return raw


def _attribute(attributes: Mapping[str, bytes], name: str, longest: int) -> str:
    raw = attributes.get(name)
    if raw is None:
        raise _invalid(f"ce_{name} is missing")
    if len(raw) > 4 * longest:
        raise _invalid(f"ce_{name} has {len(raw)} bytes, at most {longest} characters are allowed")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise _invalid(f"ce_{name} is not UTF-8") from None
    if (problem := text_problem(text, longest)) is not None:
        raise _invalid(f"ce_{name} {problem}")
    return text


def session_of(record: KafkaRecord) -> str | None:
    """Return the session that a record's key names. Raise InvalidCommandError if it is not a session id."""
    if record.key is None:
        return None
    if len(record.key) > MAX_KEY_BYTES:
        raise _invalid(f"the key must be a session id, but it has {len(record.key)} bytes")
    try:
        session_id = record.key.decode()
    except UnicodeDecodeError:
        raise _invalid("the key is not UTF-8: send the session id as UTF-8 text") from None
    if (problem := text_problem(session_id, MAX_SESSION_ID)) is not None:
        raise _invalid(f"the key must be a session id, but it {problem}")
    return session_id


def glimpse(record: KafkaRecord, envelope: Envelope | None = None) -> tuple[str | None, str | None]:
    """Return the command id and session id of a rejected record, each None if it is unknown.

    ``envelope`` is what was read of the record, if its envelope was valid.
    """
    ids = (value for name, value in record.headers if name == "ce_id" and value is not None)
    raw = next(ids, None)
    command_id = None
    if raw is not None:  # of two ids, neither is known to be the command's
        is_id = len(raw) <= _LONGEST_ID and all(other == raw for other in ids)
        command_id = _text(raw, MAX_COMMAND_ID) if is_id else None
    elif envelope is not None:
        command_id = envelope.id
    elif record.value is not None and is_structured(record):
        command_id = _event_id(record.value)
    try:
        return command_id, session_of(record)
    except InvalidCommandError:
        return command_id, None


def is_structured(record: KafkaRecord) -> bool:
    """Return whether the record's value is a whole CloudEvent."""
    return _media_type(_headers(record).get("content-type")) == STRUCTURED


def _event_id(value: bytes) -> str | None:
    from waypost.wire.plain_json import looks_like_object  # as above

    found: Any = None
    if len(value) <= _PARSED_AT_ONCE:
        try:
            event = orjson.loads(value)
        except ValueError:
            return None
        found = event.get("id") if isinstance(event, dict) else None
    elif len(value) <= MAX_COMMAND_BYTES and looks_like_object(value):
        spans = islice(member_spans(value), _MOST_ATTRIBUTES)
        raw = {name: value[start:end] for name, start, end in spans if name == "id"}
        # A list in its place may be all of the event.
        found = orjson.loads(raw["id"]) if raw.get("id", b"").startswith(b'"') else None
    return found if isinstance(found, str) and text_problem(found, MAX_COMMAND_ID) is None else None


def command_headers(
    command_id: str,
    source: bytes,
    command_type: bytes,
    time: bytes,
    traceparent: bytes | None = None,
    signature: bytes | None = None,
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
    if signature is not None:
        headers.append(("ce_signature", signature))
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def _invalid(message: str) -> InvalidCommandError:
    return InvalidCommandError("invalid-envelope", message)


def _shown(raw: bytes) -> str:
    return repr(raw[:64].decode(errors="backslashreplace"))
