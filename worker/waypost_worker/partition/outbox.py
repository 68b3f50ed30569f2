"""Results of a committed batch that are not emitted yet, and how to rebuild them. Pure.

Almost all of a create's result is its own command, which the log still has, so the outbox keeps only the number and the
removed checkpoints (about 20 bytes instead of more than the data). Any other result is kept whole. The payload is JSON:
``[offset, number, [removed…]]`` or ``[offset, key, [[header, value]…], body]``, bytes as Latin-1 text, in order of
offsets.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from waypost.errors import InvalidCommandError
from waypost.model.commands import Create
from waypost.model.index import Entry
from waypost.wire.decode import parse_body
from waypost.wire.envelope import MAX_KEY_BYTES, KafkaRecord, open_envelope
from waypost.wire.id_lists import as_written_today
from waypost.wire.traceparent import valid_traceparent
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import RefusedError, ResultRecord

Item = list[Any]
_MISSING: Final = (
    "results of committed commands are still to be emitted, and the command topic no longer holds the record "
    "at offset {offset} that they are made from: nothing was emitted or changed; see 'waypost replay'"
)

_ANOTHER: Final = (
    "the outbox says that the command at offset {offset} is a create, but the topic holds another: nothing was "
    "emitted; the command topic was replaced, see 'waypost replay'"
)


def created_item(offset: int, number: int, removed: tuple[int, ...]) -> Item:
    """The stored form of a create."""
    return [offset, number, removed]


def whole_item(offset: int, record: ResultRecord) -> Item:
    """The stored form of any other command: its whole result."""
    key = None if record.key is None else record.key.decode("latin-1")
    return [
        offset,
        key,
        [[name, value.decode("latin-1")] for name, value in record.headers],
        record.value.decode(),
    ]


def pack(items: Iterable[Item]) -> bytes:
    """The payload of a batch's outbox entry."""
    return orjson.dumps(list(items))


def unpack(payload: bytes) -> list[Item]:
    """The items of a payload, in order of offsets."""
    items: list[Item] = orjson.loads(payload)
    return items


def needs_log(items: Iterable[Item]) -> list[int]:
    """The command offsets whose records are needed to make the results again."""
    return [item[0] for item in items if len(item) == 3]


def results(
    items: Iterable[Item], log: Mapping[int, KafkaRecord], encoder: ResultEncoder
) -> list[tuple[int, ResultRecord]]:
    """The results of ``items`` with their command offsets; ``log`` holds the records that creates need.

    RefusedError if a needed record is gone.
    """
    return [(item[0], _result(item, log, encoder)) for item in items]


def missing(offset: int) -> RefusedError:
    """Return the error of an owner that needs a record which the command topic no longer holds."""
    return RefusedError(_MISSING.format(offset=offset))


def whole_result(item: Item) -> ResultRecord:
    """Return the result that an item keeps whole, as this version writes it.

    Version 0.1 also kept results that no topic takes: with long lists of ids, or with a key or a trace of megabytes.
    """
    _, key, headers, body = item
    kept = []
    for name, text in headers:
        raw: bytes | None = text.encode("latin-1")
        if name == "traceparent" and raw is not None:
            raw = valid_traceparent(raw)
        if raw is not None:
            kept.append((name, raw))
    short_key = None if key is None or len(key) > MAX_KEY_BYTES else key.encode("latin-1")
    return ResultRecord(short_key, as_written_today(body.encode()), kept)


def _result(item: Item, log: Mapping[int, KafkaRecord], encoder: ResultEncoder) -> ResultRecord:
    offset = item[0]
    if len(item) == 4:
        return whole_result(item)
    record = log.get(offset)
    if record is None or record.value is None:
        raise missing(offset)
    try:
        envelope = open_envelope(record)
        action = parse_body(envelope.type, envelope.body)
    except InvalidCommandError:
        raise RefusedError(_ANOTHER.format(offset=offset)) from None
    if not isinstance(action, Create):
        raise RefusedError(_ANOTHER.format(offset=offset))
    entry = Entry(item[1], action.name, envelope.taken_at, envelope.recorded_at, offset, envelope.id)
    return encoder.created(envelope, offset, entry, (action.data, action.metadata), tuple(item[2]))
