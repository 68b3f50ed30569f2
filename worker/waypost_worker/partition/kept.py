"""How much of a rejected command is kept: enough to look at and to repair, never all that somebody chose to send.

Owner, replay and verify cut with this code, and what is cut once stays as it is when it is cut again. So a row that
an earlier version stored whole compares equal to the one that is made of the log today. Pure.
"""

from collections.abc import Sequence
from typing import Final

from waypost.model.limits import MAX_HEADERS, MAX_HEADERS_BYTES
from waypost.wire.envelope import MAX_KEY_BYTES
from waypost_worker.partition.ports import RejectedRow

MAX_KEPT_VALUE: Final = 1024 * 1024
MAX_MESSAGE: Final = 4096  # characters


def kept(row: RejectedRow) -> RejectedRow:
    """Return the row as it is stored, with the sizes of the value and the headers if they were cut."""
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


def kept_key(key: bytes | None) -> bytes | None:
    """Return what is kept of a key; one that is cut is no session id, which the rejection says."""
    return None if key is None else key[:MAX_KEY_BYTES]


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
