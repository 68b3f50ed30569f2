"""From the bytes of a command body to what it means, without losing a byte of ``data``.

``data`` is kept exactly as received, so its span in the body is found and cut out, never written again. The common
form of a create is recognized by one regular expression; everything else takes the general way through the pydantic
models. Both ways give the same answer (a property test compares them).

A body costs as much as its size suggests, no matter what it contains: it is validated as text, without Python objects
for its contents, and only the few fields that the models know are parsed. Anybody may write to the topic, and a body of
1 MB can contain 345,000 items, each with its own errors.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, Final, cast

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.brackets import nests_deeper
from waypost.model.commands import (
    Action,
    Clear,
    Configure,
    ConfigureAuthority,
    ConfigureDefaults,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Skip,
    Unpin,
)
from waypost.model.encrypted_data import is_as_written
from waypost.model.limits import (
    MAX_CHECKPOINT_ID,
    MAX_DATA_BYTES,
    MAX_IMPORT_ITEMS,
    MAX_METADATA_TEXT,
    MAX_NAME,
    MAX_NESTING,
    checked_metadata,
    has_long_number,
    text_problem,
    too_deep,
)
from waypost.model.times import parse_micros
from waypost.wire.command_models import (
    AuthorityBody,
    Body,
    CheckpointBody,
    ClearBody,
    CreateBody,
    EraseBody,
    ExpireBody,
    ImportBody,
    ImportedCheckpoint,
    PolicyBody,
    RollbackBody,
    SkipBody,
    validate_body,
)
from waypost.wire.event_types import COMMAND_TYPES, EventType
from waypost.wire.plain_json import LARGE, check_object, looks_like_object
from waypost.wire.raw_json import element_spans, member_spans, repeated_key, value_end
from waypost.wire.signing import decode_key, decode_record_hash

_CREATE: Final = EventType.CREATE.value
# {"name":"…","metadata":{…},"data":{…}} without escapes in the name or braces inside the metadata: what
# the publisher writes. A data object then runs to the last brace of the body. A key twice fails to match or
# to parse.
_PLAIN_CREATE: Final = re.compile(
    rb'\{"name":"([^"\\\x00-\x1f]+)"(?:,"metadata":(\{[^{}]*\}))?,"data":(?=\{)'
)
# The beginning of an exported checkpoint, up to the data, in a body that is valid JSON.
_PLAIN_ITEM: Final = re.compile(
    rb'\{"id":"([^"\\]++)","name":"([^"\\]++)","timestamp":"([^"\\]++)","data":(?=\{)'
)
_PLAIN_METADATA: Final = b',"metadata":'
_ITEM_FIELDS: Final = set(ImportedCheckpoint.model_fields)
# No body and no item has this many fields. One that has more is invalid, and the rest of it is not read.
_TOO_MANY_FIELDS: Final = 8
_MANY_MEMBERS: Final = 64


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
    encrypted = is_as_written(data)  # and then needs no other look
    if not encrypted:
        if not looks_like_object(data):
            return None  # a suspect: the general way looks closely
        if nests_deeper(data, MAX_NESTING):
            raise too_deep()
    raw_name, raw_metadata = matched.groups()
    if len(raw_name) > 4 * MAX_NAME or (name := _plain_name(raw_name)) is None:
        return None
    if raw_metadata is not None and len(raw_metadata) > MAX_METADATA_TEXT:
        return None
    if raw_metadata is None or raw_metadata == b"{}":
        return tuple.__new__(Create, (name, data, b"{}", encrypted))  # as in waypost.wire.envelope
    try:
        metadata = orjson.loads(raw_metadata)
    except ValueError:
        return None
    if nests_deeper(raw_metadata, MAX_NESTING) or has_long_number(raw_metadata):
        return None
    return Create(name, data, checked_metadata(metadata, "metadata"), encrypted)


@lru_cache(maxsize=1024)
def _plain_name(raw: bytes) -> str | None:
    # Agents have few names.
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if text_problem(name, MAX_NAME) is None else None


def _general_create(body: bytes) -> Create:
    raw = _fields(body, CreateBody)
    model = cast(CreateBody, validate_body(CreateBody, _small(raw)))
    data = _data(raw["data"], "data")
    return Create(
        name=model.name,
        data=data,
        metadata=_raw_metadata(raw.get("metadata", b"{}"), "metadata"),
        encrypted=is_as_written(data),
    )


def _fields(body: bytes, model: type[Body], around: int = 1, *, once: bool = True) -> dict[str, bytes]:
    """Return the text of each field of a body, which is then known to be valid JSON within the limits.

    ``around`` is as in :func:`waypost.model.limits.check_json`. With ``once``, a repeated key is rejected.
    """
    check_object(body, around=around)
    raw, repeated = _collected(body)
    if repeated is not None and once:
        validate_body(model, _small(raw))  # an error of the model is the better explanation
        raise repeated_key(repeated)
    return raw


def _collected(text: bytes) -> tuple[dict[str, bytes], str | None]:
    """Return the text of the fields of a valid object, the last of each name, and a name that is repeated.

    Fields that no model can take are left out: some more than the largest model has are enough to reject the object.
    """
    raw: dict[str, bytes] = {}
    repeated: str | None = None
    for count, (key, start, end) in enumerate(member_spans(text)):
        if key in raw:
            repeated = repeated or key
        raw[key] = text[start:end]
        if len(raw) > _TOO_MANY_FIELDS:
            break
        if count > _MANY_MEMBERS and len(text) <= LARGE:  # of few names
            return {name: orjson.dumps(value) for name, value in orjson.loads(text).items()}, repeated
    return raw, repeated


def _small(raw: dict[str, bytes]) -> dict[str, Any]:
    """Parse fields for a model, to which an object or a list is of interest only as such."""
    empty: dict[bytes, Any] = {b"{": {}, b"[": []}
    return {key: empty[text[:1]] if text[:1] in empty else orjson.loads(text) for key, text in raw.items()}


def _import(body: bytes) -> Import:
    raw = _fields(body, ImportBody, around=3)
    model = cast(ImportBody, validate_body(ImportBody, _small(raw)))
    listed = raw["checkpoints"]
    spans = list(islice(element_spans(listed), MAX_IMPORT_ITEMS + 1))
    if len(spans) > MAX_IMPORT_ITEMS:
        raise InvalidCommandError(
            "invalid-body", f"checkpoints: at most {MAX_IMPORT_ITEMS} in one command, split the list"
        )
    # Errors in the form of any item come before errors in the size of an earlier one.
    problems: list[InvalidCommandError] = []
    items = []
    for index, (start, end) in enumerate(spans):
        item = _plain_item(listed, start, end) or _general_item(listed[start:end], index, problems)
        if item is not None:
            items.append(item)
    if problems:
        raise problems[0]
    return Import(tuple(items), model.on_conflict)


def _plain_item(listed: bytes, start: int, end: int) -> ImportItem | None:
    """Read an item as an export writes it; None leaves it to the general way."""
    matched = _PLAIN_ITEM.match(listed, start, end)
    if matched is None:
        return None
    at, metadata = value_end(listed, matched.end()), b"{}"
    data = listed[matched.end() : at]
    if at + 1 != end:
        begin = at + len(_PLAIN_METADATA)
        if not listed.startswith(_PLAIN_METADATA + b"{", at) or value_end(listed, begin) + 1 != end:
            return None
        metadata = listed[begin : end - 1]
    raw_id, raw_name, raw_time = matched.groups()
    name, identifier = _plain_name(raw_name), raw_id.decode()
    if name is None or len(data) > MAX_DATA_BYTES or text_problem(identifier, MAX_CHECKPOINT_ID):
        return None
    try:
        timestamp = parse_micros(raw_time.decode())
        metadata = _raw_metadata(metadata, "metadata")
    except ValueError:  # an InvalidCommandError is one
        return None
    return tuple.__new__(ImportItem, (identifier, name, timestamp, data, metadata))


def _general_item(text: bytes, index: int, problems: list[InvalidCommandError]) -> ImportItem | None:
    """Read an item. Raise InvalidCommandError if its form is wrong; add it to ``problems`` for anything else."""
    field = f"checkpoints.{index}"
    if text[:1] != b"{":
        validate_body(ImportedCheckpoint, _small({"": text})[""], field)
    raw, repeated = _collected(text)
    identifier, name, timestamp = _own_fields(raw) or _modeled_fields(raw, field)
    try:
        if repeated is not None:
            raise repeated_key(repeated)
        return ImportItem(
            id=identifier,
            name=name,
            timestamp=timestamp,
            data=_data(raw["data"], f"{field}.data"),
            metadata=_raw_metadata(raw.get("metadata", b"{}"), f"{field}.metadata"),
        )
    except InvalidCommandError as problem:
        problems.append(problem)
        return None


def _own_fields(raw: dict[str, bytes]) -> tuple[str, str, int] | None:
    """Return id, name and timestamp of an item that is right; None leaves it to the model."""
    if raw.keys() | {"metadata"} != _ITEM_FIELDS:
        return None
    if raw["data"][:1] != b"{" or raw.get("metadata", b"{")[:1] != b"{":
        return None
    texts = raw["id"], raw["name"], raw["timestamp"]
    if not all(text.startswith(b'"') for text in texts):
        return None
    identifier, name, time = map(orjson.loads, texts)
    if text_problem(identifier, MAX_CHECKPOINT_ID) or text_problem(name, MAX_NAME):
        return None
    try:
        return identifier, name, parse_micros(time)
    except ValueError:
        return None


def _modeled_fields(raw: dict[str, bytes], field: str) -> tuple[str, str, int]:
    model = cast(ImportedCheckpoint, validate_body(ImportedCheckpoint, _small(raw), field))
    return model.id, model.name, parse_micros(model.timestamp)


def _checkpoint_command(make: Callable[[str], Action]) -> Callable[[bytes], Action]:
    def parse(body: bytes) -> Action:
        return make(cast(CheckpointBody, _validated(CheckpointBody, body)).checkpoint_id)

    return parse


def _validated(model: type[Body], body: bytes) -> Body:
    return validate_body(model, _small(_fields(body, model, once=False)))


def _clear(body: bytes) -> Clear:
    _validated(ClearBody, body)
    return Clear()


def _rollback(body: bytes) -> Rollback:
    model = cast(RollbackBody, _validated(RollbackBody, body))
    return Rollback(model.checkpoint_id, model.discard_later)


def _configure(make: type[Configure] | type[ConfigureDefaults]) -> Callable[[bytes], Action]:
    def parse(body: bytes) -> Action:
        return make(cast(PolicyBody, _validated(PolicyBody, body)).changes())

    return parse


def _expire(body: bytes) -> Expire:
    model = cast(ExpireBody, _validated(ExpireBody, body))
    return Expire(parse_micros(model.idle_since), model.pinned)


def _erase(body: bytes) -> Erase:
    _validated(EraseBody, body)
    return Erase()


def _configure_authority(body: bytes) -> ConfigureAuthority:
    key = cast(AuthorityBody, _validated(AuthorityBody, body)).key
    return ConfigureAuthority(None if key is None else decode_key(key))


def _skip(body: bytes) -> Skip:
    model = cast(SkipBody, _validated(SkipBody, body))
    return Skip(model.offset, decode_record_hash(model.record), model.reason)


_PARSERS: Final[dict[str, Callable[[bytes], Action]]] = {
    EventType.PIN.value: _checkpoint_command(Pin),
    EventType.UNPIN.value: _checkpoint_command(Unpin),
    EventType.DELETE.value: _checkpoint_command(Delete),
    EventType.CLEAR.value: _clear,
    EventType.ROLLBACK.value: _rollback,
    EventType.IMPORT.value: _import,
    EventType.CONFIGURE.value: _configure(Configure),
    EventType.EXPIRE.value: _expire,
    EventType.ERASE.value: _erase,
    EventType.CONFIGURE_DEFAULTS.value: _configure(ConfigureDefaults),
    EventType.CONFIGURE_AUTHORITY.value: _configure_authority,
    EventType.SKIP.value: _skip,
}


def _data(data: bytes, field: str) -> bytes:
    if len(data) > MAX_DATA_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"{field} has {len(data)} bytes, at most {MAX_DATA_BYTES} are allowed: "
            "store the large part elsewhere and keep a reference to it",
        )
    return data


def _raw_metadata(raw: bytes, field: str) -> bytes:
    if len(raw) > MAX_METADATA_TEXT:
        raise InvalidCommandError(
            "too-large",
            f"{field} is written in {len(raw)} bytes, at most {MAX_METADATA_TEXT} are allowed: put the rest into data",
        )
    return raw if raw == b"{}" else checked_metadata(orjson.loads(raw), field)
