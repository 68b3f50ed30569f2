"""From the bytes of a command body to what it means, without losing a byte of ``data``.

``data`` is kept exactly as received, so its span in the body is found, not written anew. The common form of
a create is recognised by one regular expression and parsed once; everything else takes the general way
through the pydantic models. Both ways give the same answer (a property test holds them together).
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, cast

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.commands import (
    Action,
    Clear,
    Configure,
    ConfigureDefaults,
    Create,
    Delete,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.limits import (
    MAX_DATA_BYTES,
    MAX_NAME,
    MAX_NESTING,
    canonical_metadata,
    check_json,
    has_long_number,
    metadata_problem,
    nests_deeper,
    text_problem,
)
from waypost.model.times import parse_micros
from waypost.wire.command_models import (
    CheckpointBody,
    ClearBody,
    CreateBody,
    ImportBody,
    PolicyBody,
    RollbackBody,
    validate_body,
)
from waypost.wire.event_types import COMMAND_TYPES, EventType
from waypost.wire.plain_json import is_plain_object
from waypost.wire.raw_json import elements, members

_CREATE: Final = EventType.CREATE.value
# {"name":"…","metadata":{…},"data":{…}} without escapes in the name or braces inside the metadata: what
# the publisher writes. A data object then runs to the last brace of the body. A key twice fails to match or
# to parse.
_PLAIN_CREATE: Final = re.compile(
    rb'\{"name":"([^"\\\x00-\x1f]+)"(?:,"metadata":(\{[^{}]*\}))?,"data":(?=\{)'
)


def parse_body(command_type: str, body: bytes) -> Action:
    """The action of a command, or InvalidCommandError with ``invalid-body``, ``too-large`` or
    ``unsupported-type``.
    """
    if command_type == _CREATE:
        return _plain_create(body) or _general_create(body)
    parse = _PARSERS.get(command_type)
    if parse is None:
        raise InvalidCommandError(
            "unsupported-type",
            f"{command_type[:100]!r} is not a known command; known are {', '.join(COMMAND_TYPES)}",
        )
    return parse(body)


def _plain_create(body: bytes) -> Create | None:
    matched = _PLAIN_CREATE.match(body)
    # White space after the data is not data: only the general way knows where to cut it off.
    if matched is None or not body.endswith(b"}}"):
        return None
    data = body[matched.end() : -1]
    if len(data) > MAX_DATA_BYTES:
        return None  # the general way finds the words
    if not is_plain_object(data, MAX_NESTING):
        return None  # a suspect: the general way looks closely
    raw_name, raw_metadata = matched.groups()
    if len(raw_name) > 4 * MAX_NAME or (name := _plain_name(raw_name)) is None:
        return None
    if raw_metadata is None or raw_metadata == b"{}":
        return tuple.__new__(Create, (name, data, b"{}"))  # as in waypost.wire.envelope
    try:
        metadata = orjson.loads(raw_metadata)
    except ValueError:
        return None
    if nests_deeper(raw_metadata, MAX_NESTING) or has_long_number(raw_metadata):
        return None
    return Create(name, data, _metadata(metadata, "metadata"))


@lru_cache(maxsize=1024)
def _plain_name(raw: bytes) -> str | None:
    # Agents have few names.
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if text_problem(name, MAX_NAME) is None else None


def _general_create(body: bytes) -> Create:
    value = check_json(body)
    model = cast(CreateBody, validate_body(CreateBody, value))
    spans = members(body)
    return Create(
        name=model.name,
        data=_data(spans["data"], "data"),
        metadata=_metadata(model.metadata, "metadata"),
    )


def _import(body: bytes) -> Import:
    value = check_json(body, around=3)
    model = cast(ImportBody, validate_body(ImportBody, value))
    if len(model.checkpoints) > 10_000:
        raise InvalidCommandError("invalid-body", "checkpoints: at most 10000 in one command, split the list")
    raw_items = elements(members(body)["checkpoints"])
    items = []
    for index, (raw, item) in enumerate(zip(raw_items, model.checkpoints, strict=True)):
        field = f"checkpoints.{index}"
        items.append(
            ImportItem(
                id=item.id,
                name=item.name,
                timestamp=parse_micros(item.timestamp),
                data=_data(members(raw.encode())["data"], f"{field}.data"),
                metadata=_metadata(item.metadata, f"{field}.metadata"),
            )
        )
    return Import(tuple(items), model.on_conflict)


def _checkpoint_command(make: Callable[[str], Action]) -> Callable[[bytes], Action]:
    def parse(body: bytes) -> Action:
        return make(cast(CheckpointBody, validate_body(CheckpointBody, check_json(body))).checkpoint_id)

    return parse


def _clear(body: bytes) -> Clear:
    validate_body(ClearBody, check_json(body))
    return Clear()


def _rollback(body: bytes) -> Rollback:
    model = cast(RollbackBody, validate_body(RollbackBody, check_json(body)))
    return Rollback(model.checkpoint_id, model.discard_later)


def _configure(make: type[Configure] | type[ConfigureDefaults]) -> Callable[[bytes], Action]:
    def parse(body: bytes) -> Action:
        return make(cast(PolicyBody, validate_body(PolicyBody, check_json(body))).changes())

    return parse


_PARSERS: Final[dict[str, Callable[[bytes], Action]]] = {
    EventType.PIN.value: _checkpoint_command(Pin),
    EventType.UNPIN.value: _checkpoint_command(Unpin),
    EventType.DELETE.value: _checkpoint_command(Delete),
    EventType.CLEAR.value: _clear,
    EventType.ROLLBACK.value: _rollback,
    EventType.IMPORT.value: _import,
    EventType.CONFIGURE.value: _configure(Configure),
    EventType.CONFIGURE_DEFAULTS.value: _configure(ConfigureDefaults),
}


def _data(raw: str, field: str) -> bytes:
    data = raw.encode()
    if len(data) > MAX_DATA_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"{field} has {len(data)} bytes, at most {MAX_DATA_BYTES} are allowed: "
            "store the large part elsewhere and keep a reference to it",
        )
    return data


def _metadata(metadata: dict[str, Any], field: str) -> bytes:
    raw = canonical_metadata(metadata)
    problem = metadata_problem(metadata, raw)
    if problem is not None:
        raise InvalidCommandError("too-large" if "bytes" in problem else "invalid-body", f"{field} {problem}")
    return raw
