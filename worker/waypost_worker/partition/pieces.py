"""What a fetch brought, decoded a few records at a time and cut into batches. Pure.

A batch of two thousand commands is more than a core's cache holds. Decoded all at once, each body has left it again
when its turn comes to be decided on and copied into its result, which makes both dearer: so a piece is taken all the
way before the next one is looked at. Where pieces end changes nothing that a command means.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.apply import Decoded, cut, decode

_PIECE: Final = 64


class Pieces:
    """The ``records`` of one fetch; true as long as some are left."""

    def __init__(
        self, records: Sequence[KafkaRecord], partition: int, partitions: int, most_bytes: int
    ) -> None:
        self._records = records
        self._partition = partition
        self._partitions = partitions
        self._most_bytes = most_bytes
        self._at = 0
        self._left: list[Decoded] = []

    def __bool__(self) -> bool:
        return bool(self._left) or self._at < len(self._records)

    def batch(self) -> Iterator[list[Decoded]]:
        """The pieces of the next batch, none of them empty: ``most_bytes`` together, at least one record.

        Take it to its end before the next one.
        """
        room = self._most_bytes
        while self:
            piece = self._left or self._decode()
            size, weight = cut(piece, room)
            if weight > room and room < self._most_bytes:
                self._left = piece  # cut takes one record at least, and only the first may be too large
                return
            self._left = piece[size:]
            yield piece[:size]
            room -= weight
            if self._left:
                return

    def _decode(self) -> list[Decoded]:
        piece = self._records[self._at : self._at + _PIECE]
        self._at += len(piece)
        return [decode(record, self._partition, self._partitions) for record in piece]
