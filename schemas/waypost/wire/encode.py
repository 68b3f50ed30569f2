"""From an agent's Python values to command bodies, or an error at the call that names the argument.

The counterpart of :mod:`waypost.wire.decode`: what passes here, the worker accepts. Pure.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast, get_args

import orjson

from waypost.errors import InvalidCommandError, did_you_mean, quoted
from waypost.model.commands import Create, ImportItem, OnConflict
from waypost.model.limits import (
    MAX_CHECKPOINT_ID,
    MAX_DATA_BYTES,
    MAX_NAME,
    MAX_REASON,
    MAX_SESSION_ID,
    MAX_TYPE,
    Default,
    check_json,
    checked_metadata,
    dump_object,
    text_problem,
)
from waypost.model.times import format_micros, to_micros
from waypost.wire.signing import encode_key


def create_action(
    name: str,
    data: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    default: Default | None = None,
) -> Create:
    """A create command from Python values; InvalidCommandError names the argument that is wrong."""
    _check_name(name)
    searchable = b"{}" if metadata is None else metadata_json(metadata, default)
    return Create(name, _data_json(data, default), searchable)


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise InvalidCommandError("invalid-body", f"name must be a string, not {type(name).__name__}")
    if (problem := text_problem(name, MAX_NAME)) is not None:
        raise InvalidCommandError("invalid-body", f"name {problem}")


def _data_json(data: dict[str, Any], default: Default | None) -> bytes:
    return _fitting(dump_object(data, "data", default))


def _fitting(raw: bytes) -> bytes:
    if len(raw) > MAX_DATA_BYTES:
        raise InvalidCommandError(
            "too-large",
            f"data has {len(raw)} bytes, at most {MAX_DATA_BYTES} are allowed: "
            "store the large part elsewhere and keep a reference to it",
        )
    return raw


def metadata_json(metadata: dict[str, Any], default: Default | None = None) -> bytes:
    """Canonical JSON of metadata that an agent passed; InvalidCommandError says what is wrong."""
    return checked_metadata(check_json(dump_object(metadata, "metadata", default)), "metadata")


def check_session_id(session_id: str) -> str:
    """``session_id``, or InvalidCommandError (``invalid-envelope``) that says what is wrong with it."""
    if not isinstance(session_id, str):
        raise InvalidCommandError(
            "invalid-envelope", f"a session id must be a string, not {type(session_id).__name__}"
        )
    if (problem := text_problem(session_id, MAX_SESSION_ID)) is not None:
        raise InvalidCommandError("invalid-envelope", f"the session id {problem}")
    return session_id


def check_raw(command_type: str, body: bytes) -> None:
    """InvalidCommandError for what could not be sent; whether the body is good is the worker's to say."""
    if not isinstance(command_type, str):
        raise InvalidCommandError(
            "unsupported-type", f"a command type must be a string, not {type(command_type).__name__}"
        )
    if (problem := text_problem(command_type, MAX_TYPE)) is not None:
        raise InvalidCommandError("unsupported-type", f"the command type {problem}")
    if not isinstance(body, bytes):
        raise InvalidCommandError(
            "invalid-body", f"a body must be bytes, the command's JSON in UTF-8, not {type(body).__name__}"
        )


class CreateParts(NamedTuple):
    """A create that was checked: its name, the beginning of its body up to the data, and the JSON of the data."""

    name: str
    head: bytes
    data: bytes

    def body(self, data: bytes) -> bytes:
        """Return the body with this data."""
        return b'%b,"data":%b}' % (self.head, data)


def create_parts(
    name: str,
    data: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    default: Default | None = None,
) -> CreateParts:
    """Parts of a create: name, metadata, data, in the order that the worker reads fastest."""
    if type(name) is not str:
        _check_name(name)
        name = str.__str__(name)
    head = _create_head(name)
    return _with_metadata(CreateParts(name, head, _data_json(data, default)), metadata, default)


def encoded_create(name: str, raw: bytes, metadata: dict[str, Any]) -> CreateParts:
    """Parts of a create, from the JSON that :func:`waypost.model.limits.dump_object` made of its data."""
    return _with_metadata(CreateParts(name, _create_head(name), _fitting(raw)), metadata, None)


def _with_metadata(
    parts: CreateParts, metadata: dict[str, Any] | None, default: Default | None
) -> CreateParts:
    if metadata is not None and (searchable := metadata_json(metadata, default)) != b"{}":
        return parts._replace(head=b'%b,"metadata":%b' % (parts.head, searchable))
    return parts


def action_parts(action: Create) -> CreateParts:
    """Parts of a create that was read from a body."""
    head = b'{"name":' + orjson.dumps(action.name)
    if action.metadata != b"{}":
        head = b'%b,"metadata":%b' % (head, action.metadata)
    return CreateParts(action.name, head, action.data)


def import_item(item: ImportItem, data: bytes) -> bytes:
    """JSON of an element of an import, with this data."""
    head = orjson.dumps({"id": item.id, "name": item.name, "timestamp": format_micros(item.timestamp)})
    return b'%b,"data":%b,"metadata":%b}' % (head[:-1], data, item.metadata)


@lru_cache(maxsize=1024)
def _create_head(name: str) -> bytes:
    # An agent uses a few names over and over: looking a name over and escaping it costs more than finding it here.
    _check_name(name)
    return b'{"name":' + orjson.dumps(name)


def checkpoint_body(checkpoint_id: str) -> bytes:
    """Body of pin, unpin and delete."""
    return orjson.dumps({"checkpoint_id": _checkpoint_id(checkpoint_id)})


def rollback_body(checkpoint_id: str, discard_later: bool = False) -> bytes:
    """Body of a rollback."""
    return orjson.dumps(
        {"checkpoint_id": _checkpoint_id(checkpoint_id), "discard_later": bool(discard_later)}
    )


def import_body(checkpoints: list[bytes], on_conflict: OnConflict = "skip") -> bytes:
    """Body of an import from the JSON of each checkpoint."""
    if on_conflict not in get_args(OnConflict):
        raise InvalidCommandError(
            "invalid-body", f"on_conflict must be 'skip', 'replace' or 'reject', not {quoted(on_conflict)}"
        )
    return (
        b'{"checkpoints":[' + b",".join(checkpoints) + b'],"on_conflict":' + orjson.dumps(on_conflict) + b"}"
    )


def policy_changes(changes: Mapping[str, int | float | None]) -> tuple[tuple[str, int | None], ...]:
    """Checked changes of a policy, ``max_age`` from seconds to microseconds."""
    # Imported here, because agents that set no policy should not have to load pydantic.
    from waypost.wire.command_models import PolicyBody, validate_body

    for name in changes:
        if name not in PolicyBody.model_fields:
            advice = did_you_mean(name, PolicyBody.model_fields) or " Remove it."
            raise InvalidCommandError("invalid-body", f"{name}: unknown field.{advice}")
    return cast(PolicyBody, validate_body(PolicyBody, dict(changes))).changes()


def policy_body(changes: Mapping[str, int | float | None]) -> bytes:
    """Body of the two configure commands."""
    policy_changes(changes)
    return orjson.dumps(dict(changes))


def expire_body(idle_since: datetime, pinned: bool = False) -> bytes:
    """Body of an expiry; NaiveDatetimeError if ``idle_since`` has no time zone."""
    return orjson.dumps({"idle_since": format_micros(to_micros(idle_since)), "pinned": bool(pinned)})


def authority_body(key: bytes | None) -> bytes:
    """Body of a command that names a partition's authority."""
    return orjson.dumps({"key": None if key is None else encode_key(key)})


def skip_body(offset: int, record: bytes, reason: str) -> bytes:
    """Body of an order to skip a command; ``record`` is the hash of its record."""
    if (problem := text_problem(reason, MAX_REASON)) is not None:
        raise InvalidCommandError("invalid-body", f"the reason {problem}")
    return orjson.dumps({"offset": offset, "record": record.hex(), "reason": reason})


def _checkpoint_id(checkpoint_id: str) -> str:
    if not isinstance(checkpoint_id, str):
        raise InvalidCommandError(
            "invalid-body", f"checkpoint_id must be a string, not {type(checkpoint_id).__name__}"
        )
    if (problem := text_problem(checkpoint_id, MAX_CHECKPOINT_ID)) is not None:
        raise InvalidCommandError("invalid-body", f"checkpoint_id {problem}")
    return checkpoint_id
