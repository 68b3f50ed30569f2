"""Fetched records of one partition, decoded piece by piece: every offset is answered once, in order.

Decodes with ``waypost.kafka.record_batches``, which answers for every offset, whatever the bytes are: records that
nobody can read come as :class:`UnreadableRecord`. Owns the position. No connection.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from aiokafka.errors import CorruptRecordException

from waypost.kafka.record_batches import Damaged, Hole, Piece, Records, Unreadable, decode_batches
from waypost.model.decisions import Rejected
from waypost_worker.kafka.fetch_by_id import Fetched
from waypost_worker.partition.ports import RefusedError, UnreadableRecord

# The most that one call returns, so that batches that unpack to many times their size stay in bounds.
_GET_BYTES: Final = 16 * 1024 * 1024
# Decoding lets other tasks run this often, in seconds.
_TURN: Final = 0.02
# The position of a batch's format, and of its largest timestamp in format 2.
_MAGIC_AT: Final = 16
_TIMESTAMP: Final = slice(35, 43)


class RecordBuffer:
    """Decodes the records of one partition. ``position`` is the offset of the next one.

    ``next_fetched`` returns what was fetched next, None if there is nothing; ``opened`` is called with the bytes before
    they are decoded. With ``committed``, records of aborted transactions are left out, and missing
    offsets are refused.
    """

    def __init__(
        self,
        name: str,
        next_fetched: Callable[[], Fetched | None],
        opened: Callable[[bytes], None],
        *,
        committed: bool,
    ) -> None:
        self.position = 0
        self._name = name
        self._next_fetched = next_fetched
        self._opened = opened
        self._committed = committed
        self._pieces: Iterator[Piece] | None = None
        self._piece: Piece | None = None
        self._records: list[Any] = []

    def move(self, offset: int) -> None:
        """Drop everything here, and continue from ``offset``."""
        self.position = offset
        self._pieces = self._piece = None
        self._records = []

    async def take(self, most: int) -> list[Any]:
        """Return records until there are ``most``, or enough bytes; none if nothing is here.

        Raises:
            RefusedError: The log has a hole at the position.
            CorruptRecordException: The bytes are not those that were written. Move before the next call.
        """
        taken: list[Any] = []
        size = 0
        clock = asyncio.get_running_loop().time
        turn = clock() + _TURN
        while len(taken) < most and size < _GET_BYTES:
            if not self._records and not self._next_piece(most - len(taken), may_fail=not taken):
                break
            room = most - len(taken)
            found, self._records = self._records[:room], self._records[room:]
            size += sum([len(record.value or b"") for record in found])
            if found:
                taken += found
                self.position = found[-1].offset + 1
            if clock() > turn:
                await asyncio.sleep(0)
                turn = clock() + _TURN
        return taken

    def _next_piece(self, most: int, *, may_fail: bool) -> bool:
        """Make the records of the next piece ready; False if there is none, or it must fail and records come first."""
        piece = self._piece or self._unread_piece()
        if piece is None:
            return False
        self._piece = None
        match piece:
            case Records():
                self._records = list(piece.records)
            case Unreadable():
                last = min(piece.last, piece.first + most - 1)
                self._records = [_unreadable(piece, offset) for offset in range(piece.first, last + 1)]
                if last < piece.last:
                    self._piece = replace(piece, first=last + 1)
            case Hole() if self._committed:
                if not may_fail:
                    self._piece = piece
                    return False
                raise RefusedError(
                    f"{self._name} has no offsets {piece.first} to {piece.last}, although it has later ones: the "
                    "topic is compacted (cleanup.policy=compact), or records were removed from its middle. "
                    "Nothing was skipped or changed. Set cleanup.policy=delete; restore the removed records "
                    "from a snapshot or another copy"
                )
            case Damaged():
                if not may_fail:
                    self._piece = piece
                    return False
                raise CorruptRecordException(piece.message)
            case _:
                self.position = piece.last + 1
        return True

    def _unread_piece(self) -> Piece | None:
        while True:
            piece = None if self._pieces is None else next(self._pieces, None)
            if piece is not None:
                return piece
            self._pieces = None
            fetched = self._next_fetched()
            if fetched is None:
                return None
            self._opened(fetched.records)
            aborted = fetched.aborted if self._committed else None
            self._pieces = decode_batches(fetched.records, self.position, aborted=aborted)


def _unreadable(piece: Unreadable, offset: int) -> UnreadableRecord:
    """Return what stands for one offset of a batch. The last offset of the batch keeps the bytes, once for all."""
    old = piece.batch[_MAGIC_AT] < 2
    timestamp = 0 if old else int.from_bytes(piece.batch[_TIMESTAMP], "big", signed=True)
    kept = bytes(piece.batch) if offset == piece.batch_end else b""
    return UnreadableRecord(offset, timestamp, kept, Rejected(piece.reason, piece.message))
