"""From what a person or a program types to a command: its type and its body, checked before it is sent."""

import sys
from pathlib import Path
from typing import Any, Final

import orjson

from waypost.errors import InvalidCommandError, did_you_mean
from waypost.wire.decode import parse_body
from waypost.wire.encode import check_session_id
from waypost.wire.event_types import COMMAND_TYPES, PARTITION_TYPES, EventType
from waypost.wire.raw_json import members
from waypost_worker.cli.support.output import USAGE, CommandError
from waypost_worker.operations.sending import Prepared

TYPES: Final = {kind.rpartition(".")[2]: kind for kind in COMMAND_TYPES if kind not in PARTITION_TYPES}
_FIELDS: Final = frozenset(("session", "name", "data", "metadata", "type", "body"))


def from_arguments(
    session: str, name: str | None, data: str | None, metadata: str | None, kind: str, body: str | None
) -> Prepared:
    """A command from the command line; CommandError or InvalidCommandError say what is wrong with it."""
    if [data, metadata, body].count("-") > 1:
        raise CommandError("only one of --data, --metadata and --body can come from standard input", USAGE)
    full = _full_type(kind)
    if body is not None:
        if (name, data, metadata) != (None, None, None):
            raise CommandError("--body is the whole command: leave out NAME, --data and --metadata", USAGE)
        return _prepared(session, full, _text(body))
    if full != EventType.CREATE:
        if (name, data, metadata) != (None, None, None):
            raise CommandError(f"a {kind} has no NAME, --data and --metadata: see --body", USAGE)
        return _prepared(session, full, b"{}")
    if name is None:
        raise CommandError("a checkpoint needs a NAME: waypost publish SESSION NAME", USAGE)
    parts = {"name": orjson.dumps(name)}
    if metadata is not None:
        parts["metadata"] = _json(metadata, "--metadata")
    parts["data"] = b"{}" if data is None else _json(data, "--data")
    return _prepared(session, full, _object(parts))


def from_line(line: bytes) -> Prepared:
    """A command from a line of JSON: session, name, data, metadata; or session, type, body.

    InvalidCommandError says what is wrong with it.
    """
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidCommandError("invalid-body", f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidCommandError("invalid-body", "not a JSON object")
    if unknown := sorted(set(fields) - _FIELDS):
        raise InvalidCommandError(
            "invalid-body",
            f"unknown field {unknown[0]!r}.{did_you_mean(unknown[0], _FIELDS)} Known: {_known()}",
        )
    if not isinstance(fields.get("session"), str):
        raise InvalidCommandError("invalid-envelope", "session is required, and must be a string")
    kind = _full_type(str(fields.get("type", "create")))
    # As it was written: data is kept to the byte.
    raw = members(line)
    if "body" in raw:
        body = raw["body"]
    else:
        body = _object({name: raw[name] for name in ("name", "metadata", "data") if name in raw})
    return _prepared(fields["session"], kind, body)


def _full_type(kind: str) -> str:
    full = TYPES.get(kind, kind)
    if kind in ("defaults", "defaults.configure") or full == EventType.CONFIGURE_DEFAULTS:
        raise CommandError("defaults belong to no session: use 'waypost defaults'", USAGE)
    if full == EventType.CONFIGURE_AUTHORITY:
        raise CommandError("an authority belongs to no session: use 'waypost authority'", USAGE)
    if full == EventType.SKIP:
        raise CommandError("an order to skip belongs to no session: use 'waypost commands skip'", USAGE)
    if full not in COMMAND_TYPES:
        raise CommandError(f"there is no command type {kind!r}; there are {', '.join(TYPES)}", USAGE)
    return full


def _prepared(session: str, kind: str, body: bytes) -> Prepared:
    check_session_id(session)
    parse_body(kind, body)
    return Prepared(session, kind, body)


def _object(parts: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(orjson.dumps(name) + b":" + raw for name, raw in parts.items()) + b"}"


def _known() -> str:
    return "session, name, data, metadata, or session, type, body"


def _json(given: str, flag: str) -> bytes:
    raw = _text(given).strip()
    try:
        value: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"{flag} is not JSON: {error}", USAGE) from None
    if not isinstance(value, dict):
        raise CommandError(f"{flag} must be a JSON object, {{...}}", USAGE)
    return raw


def _text(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_bytes()
        except OSError as error:
            raise CommandError(f"{given[1:]} can't be read: {error.strerror}", USAGE) from None
    return given.encode()
