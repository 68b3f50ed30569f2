"""Check what a reader makes of fetched record batches."""

import struct
from collections.abc import Sequence

from waypost.kafka.record_batches import Damaged, Piece, Records, Unreadable


def answer(pieces: Sequence[Piece]) -> str:
    """Return what the pieces say, in the words of `Variant.answer`."""
    said: list[str] = []
    for piece in pieces:
        word = "records" if isinstance(piece, Records) else type(piece).__name__.lower()
        if isinstance(piece, Unreadable):
            word = piece.reason
        if said[-1:] != [word]:
            said.append(word)
    return ", then ".join(said)


def assert_tiled(pieces: Sequence[Piece], raw: bytes, position: int) -> None:
    """Fail unless the pieces cover each offset from ``position`` to the end of the last whole batch exactly once."""
    expected = position
    for number, piece in enumerate(pieces):
        assert piece.first == expected
        if isinstance(piece, Damaged):
            assert number == len(pieces) - 1
            return
        assert piece.last >= piece.first
        if isinstance(piece, Records):
            assert [one.offset for one in piece.records] == list(range(piece.first, piece.last + 1))
        expected = piece.last + 1
    assert expected == max(position, *_ends(raw))


def _ends(raw: bytes) -> list[int]:
    """Return the offsets after each whole batch of format 2, and after each message of older formats."""
    ends, at = [0], 0
    while len(raw) - at >= 17:
        offset, length = struct.unpack_from(">qi", raw, at)
        end = at + 12 + length
        if end > len(raw) or length < 5:
            break
        delta = struct.unpack_from(">i", raw, at + 23)[0] if raw[at + 16] == 2 else 0
        ends.append(offset + max(0, delta) + 1)
        at = end
    return ends
