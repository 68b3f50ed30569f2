"""PostgreSQL's binary COPY format, read without a server: rows as lists of fields, each its bytes or None.

The format: https://www.postgresql.org/docs/current/sql-copy.html
"""

import struct
from collections.abc import AsyncIterator
from typing import Final

_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_HEADER: Final = struct.Struct("!11sII")  # the signature, flags, the length of what follows
_COUNT: Final = struct.Struct("!h")
_LENGTH: Final = struct.Struct("!i")
_END: Final = -1
_LONGEST_FIELD: Final = 64 * 1024 * 1024  # four times the largest command

Fields = list[bytes | None]


class CopyFormatError(Exception):
    """The stream is not in this format, or ends in the middle."""


async def rows_of(stream: AsyncIterator[bytes]) -> AsyncIterator[list[Fields]]:
    """The rows of each piece of a stream, those that end in it. Pieces may be cut anywhere."""
    held, began, ended = b"", False, False
    async for piece in stream:
        held += piece
        at = 0
        if not began:
            if len(held) < _HEADER.size:
                continue
            signature, flags, extra = _HEADER.unpack_from(held)
            if signature != _SIGNATURE or flags or extra:
                raise CopyFormatError("it is not in the format that COPY writes")
            began, at = True, _HEADER.size
        rows, at, ended = _rows(held, at)
        held = held[at:]
        yield rows
    if held or began != ended:
        raise CopyFormatError("it ends in the middle")


def _rows(held: bytes, at: int) -> tuple[list[Fields], int, bool]:
    """Whole rows, where they end, and whether the stream does."""
    rows: list[Fields] = []
    size = len(held)
    while at + 2 <= size:
        (count,) = _COUNT.unpack_from(held, at)
        if count == _END:
            return rows, at + 2, True
        row: Fields = []
        place = at + 2
        for _ in range(count):
            if place + 4 > size:
                return rows, at, False
            (length,) = _LENGTH.unpack_from(held, place)
            place += 4
            if length < 0:
                row.append(None)
                continue
            if length > _LONGEST_FIELD:
                raise CopyFormatError(f"a field has {length} bytes, at most {_LONGEST_FIELD} are possible")
            if place + length > size:
                return rows, at, False
            row.append(held[place : place + length])
            place += length
        rows.append(row)
        at = place
    return rows, at, False
