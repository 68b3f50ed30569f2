"""The interchange format as lines: one checkpoint per line, for any number of sessions in sequence.

A line has the five keys of the interchange list, and its id names the session (``session:number``). There is not one
line per session, because a session can contain gigabytes and a line must fit into one command. Knows neither Kafka nor
Postgres.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import Checkpoint, own_number
from waypost.model.commands import OnConflict
from waypost.model.times import format_micros, to_micros
from waypost.publisher.calls import (
    ENCRYPTED_PART_BYTES,
    ENCRYPTED_PART_COUNT,
    IMPORT_PART_BYTES,
    IMPORT_PART_COUNT,
    split_import,
)
from waypost.wire.decode import parse_body
from waypost.wire.encode import check_session_id, import_body
from waypost.wire.event_types import EventType


class Part(NamedTuple):
    """The body of one import command. ``where`` says which of the given checkpoints are in it."""

    session: str
    body: bytes
    where: str


def line_of(checkpoint: Checkpoint, metadata: bytes | None = None) -> bytes:
    """A checkpoint as a line, without its end; ``metadata`` replaces its own.

    ``data`` stays as it was sent, except that line breaks between its tokens become spaces.
    """
    fields = {
        "id": checkpoint.id,
        "name": checkpoint.name,
        "timestamp": format_micros(to_micros(checkpoint.timestamp)),
        "data": orjson.Fragment(checkpoint.raw_data.replace(b"\n", b" ").replace(b"\r", b" ")),
        "metadata": orjson.Fragment(checkpoint.raw_metadata if metadata is None else metadata),
    }
    return orjson.dumps(fields)


def parts_of_list(
    text: bytes, session: str, on_conflict: OnConflict, *, encrypts: bool = False
) -> list[Part]:
    """An exported list as parts for one session, all checked. InvalidCommandError says what is wrong with it.

    With ``encrypts``, they also fit into a command each once they are encrypted.
    """
    parts = []
    first = 1
    for items in split_import(text, encrypts=encrypts):
        parts.append(_part(session, items, on_conflict, f"checkpoints {first} to {first + len(items) - 1}"))
        first += len(items)
    return parts


def parts_of_lines(
    lines: Iterable[bytes], session: str | None, on_conflict: OnConflict, *, encrypts: bool = False
) -> Iterator[Part]:
    """Lines as parts, each checked when it is made: for one session, or for the one that each line's id names.

    InvalidCommandError names the lines. With ``encrypts``, they also fit into a command each once they are encrypted.
    """
    most_bytes = ENCRYPTED_PART_BYTES if encrypts else IMPORT_PART_BYTES
    most = ENCRYPTED_PART_COUNT if encrypts else IMPORT_PART_COUNT
    items: list[bytes] = []
    owner, first, size = "", 1, 0
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line:
            continue
        of = session if session is not None else _session_of(line, number)
        full = size + len(line) > most_bytes or len(items) >= most
        if items and (of != owner or full):
            yield _part(owner, items, on_conflict, f"lines {first} to {number - 1}")
            items, size = [], 0
        if not items:
            owner, first = of, number
        items.append(line)
        size += len(line) + 1
    if items:
        yield _part(owner, items, on_conflict, f"lines {first} to {first + len(items) - 1}")


def _session_of(line: bytes, number: int) -> str:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidCommandError("invalid-body", f"line {number} is not JSON: {error}") from None
    identifier = fields.get("id") if isinstance(fields, dict) else None
    session = identifier.rpartition(":")[0] if isinstance(identifier, str) else ""
    if not isinstance(identifier, str) or own_number(session, identifier) is None:
        raise InvalidCommandError(
            "invalid-body",
            f"line {number} has no id of the form session:number: name the SESSION that its checkpoints go to",
        )
    return check_session_id(session)


def _part(session: str, items: list[bytes], on_conflict: OnConflict, where: str) -> Part:
    body = import_body(items, on_conflict)
    try:
        parse_body(EventType.IMPORT, body)
    except InvalidCommandError as error:
        raise InvalidCommandError(error.code, f"{where}: {error.message}") from None
    return Part(session, body, where)
