"""PostgreSQL's binary COPY format, read from pieces that are cut anywhere; refused where it is not whole."""

import random
import struct
from collections.abc import AsyncIterator, Sequence

import pytest

from waypost_worker.snapshots.pgcopy import CopyFormatError, Fields, rows_of

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"


def written(rows: Sequence[Fields]) -> bytes:
    text = HEADER
    for row in rows:
        text += struct.pack("!h", len(row))
        for field in row:
            text += b"\xff\xff\xff\xff" if field is None else struct.pack("!i", len(field)) + field
    return text + END


async def read(text: bytes, cuts: Sequence[int] = ()) -> list[Fields]:
    async def pieces() -> AsyncIterator[bytes]:
        for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            yield text[begin:end]

    return [row async for rows in rows_of(pieces()) for row in rows]


@pytest.mark.parametrize("seed", range(20))
async def test_rows_come_back_wherever_the_stream_is_cut(seed: int) -> None:
    chance = random.Random(seed)
    rows: list[Fields] = [
        [chance.choice([None, b"", chance.randbytes(chance.randrange(60))]) for _ in range(3)]
        for _ in range(chance.randrange(30))
    ]
    text = written(rows)
    cuts = sorted(chance.randrange(len(text)) for _ in range(chance.randrange(12)))
    assert await read(text, cuts) == rows


async def test_a_table_without_a_file_has_no_rows() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        for piece in ():
            yield piece

    assert [rows async for rows in rows_of(nothing())] == []


async def test_a_file_that_is_cut_or_too_long_is_refused() -> None:
    text = written([[b"one", None], [b"two", b"more"]])
    for size in range(1, len(text)):
        with pytest.raises(CopyFormatError, match="ends in the middle"):
            await read(text[:size])
    with pytest.raises(CopyFormatError, match="ends in the middle"):
        await read(text + b"x")
    with pytest.raises(CopyFormatError, match="not in the format"):
        await read(b"x" + text)
    with pytest.raises(CopyFormatError, match="not in the format"):
        await read(text[:11] + b"\0\1\0\0" + text[15:])
