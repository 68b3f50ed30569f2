"""The stored part of rejected commands: enough to inspect and repair them, but never everything that was sent.

Owner, replay and verify cut with this code, and what is cut once stays as it is when it is cut again. So a row that
an earlier version stored whole compares equal to the one that is made of the log today. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from waypost.model.limits import MAX_HEADERS, MAX_HEADERS_BYTES
from waypost.wire.envelope import MAX_KEY_BYTES
from waypost_worker.partition.ports import RejectedRow, RejectedWindow

MAX_KEPT_VALUE: Final = 1024 * 1024
MAX_MESSAGE: Final = 4096  # characters
# Of each partition at most 10,000 rows and 256 MiB are kept. These are constants, because what is kept is a function
# of the log.
PARTS: Final = 8
PART_ROWS: Final = 1250
PART_BYTES: Final = 32 * 1024 * 1024


def kept(row: RejectedRow) -> RejectedRow:
    """Return the row as it is stored, with the sizes of the value and the headers if they were cut."""
    if not row.headers and len(row.message) <= MAX_MESSAGE and _is_short(row.key, row.value):
        return row  # as hundreds of thousands of tiny records in a batch
    value, value_bytes = row.value, row.value_bytes
    if value is not None and len(value) > MAX_KEPT_VALUE:
        value, value_bytes = value[:MAX_KEPT_VALUE], len(value)
    headers, headers_bytes = row.headers, row.headers_bytes
    if (fitting := _fitting(headers)) < len(headers):
        headers, headers_bytes = headers[:fitting], _size(headers)
    return row._replace(
        message=row.message[:MAX_MESSAGE],
        key=kept_key(row.key),
        value=value,
        headers=headers,
        value_bytes=value_bytes,
        headers_bytes=headers_bytes,
    )


def without_content(row: RejectedRow) -> RejectedRow:
    """Return the row of a command to an erased session, which shows only that it came, and how large it was."""
    value = row.value
    return row._replace(
        value=None if value is None else b"",
        headers=(),
        value_bytes=len(value) if value else None,
        headers_bytes=_size(row.headers) or None,
    )


def kept_key(key: bytes | None) -> bytes | None:
    """Return the stored part of a key. A shortened key is not a session id, and the rejection says that."""
    return None if key is None else key[:MAX_KEY_BYTES]


def _is_short(key: bytes | None, value: bytes | None) -> bool:
    return (key is None or len(key) <= MAX_KEY_BYTES) and (value is None or len(value) <= MAX_KEPT_VALUE)


def _fitting(headers: Sequence[tuple[str, bytes]]) -> int:
    """Return how many of the headers fit, in their order."""
    size = 0
    for index, header in enumerate(headers[:MAX_HEADERS]):
        size += _size((header,))
        if size > MAX_HEADERS_BYTES:
            return index
    return min(len(headers), MAX_HEADERS)


def _size(headers: Sequence[tuple[str, bytes]]) -> int:
    return sum([len(name) + len(value or b"") for name, value in headers])


def headers_json(row: RejectedRow) -> bytes:
    """Return the headers as they are stored: a list of names and values, bytes as Latin-1 text."""
    return orjson.dumps([[name, None if raw is None else raw.decode("latin-1")] for name, raw in row.headers])


def kept_size(row: RejectedRow) -> int:
    """Return the bytes of a row that count. The message does not: its wording may change between versions."""
    return len(row.key or b"") + len(row.value or b"") + len(headers_json(row))


def make_room(window: RejectedWindow, rows: Iterable[RejectedRow]) -> tuple[RejectedWindow, int]:
    """Return the window after these new rows, and how many older or new ones it drops for them.

    A part that is full is followed by a new one. If that is one part too many, the oldest is dropped as a whole, so
    that the window is a small value that can be stored with each batch. It depends on the log alone: not on where
    batches end, and not on which rows are still stored.
    """
    parts, size, dropped = list(window.parts), window.newest_bytes, 0
    for row in rows:
        if row.offset < window.since:
            continue
        added = kept_size(row)
        first, count = parts[-1]
        if count and (count >= PART_ROWS or size + added > PART_BYTES):
            parts.append((row.offset, 1))
            size = 0
            if len(parts) > PARTS:
                dropped += parts.pop(0)[1]
        else:
            parts[-1] = first, count + 1
        size += added
    return RejectedWindow(window.since, tuple(parts), size), dropped
