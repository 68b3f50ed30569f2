"""What a fetch brought, decoded a few records at a time and cut into batches. Pure.

A batch of two thousand commands is more than a core's cache holds. Decoded all at once, each body has left it again
when its turn comes to be decided on and copied into its result, which makes both dearer: so a piece is taken all the
way before the next one is looked at. Where pieces end changes nothing that a command means.
"""

from collections.abc import Iterator, Sequence
from math import exp
from typing import Final

from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.batch import Decoded, cut, decode

_PIECE: Final = 64
_LONGEST: Final = 0.005
_REMEMBERED: Final = 0.25  # seconds that the rate looks back
# A batch of this size is worth its costs.
_LARGE: Final = 500


class BatchSplitter:
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


class AdaptiveLinger:
    """When to let commands gather before the next batch, for one term. Seconds of a clock that never goes back.

    A batch has costs of its own: a fetch, a commit and an append, each a request that wakes somebody up, several
    milliseconds of CPU together. A thousand commands per second that go one or two at a time keep two cores busy with
    that alone, and then wait for each other. Gathered for as long as the last batch took, each waits a little longer,
    and all wait less. If commands are rarer than that, nothing is gained, and nobody waits.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self._rate = 0.0
        self._pause = 0.0

    def took(self, commands: int, fetched_at: float, seconds: float) -> None:
        """What a fetch brought was applied and committed in so many ``seconds``."""
        past = max(0.0, fetched_at - self._last)
        self._last = max(fetched_at, self._last)
        self._rate = self._rate * exp(-past / _REMEMBERED) + commands / _REMEMBERED
        gathering = min(seconds, _LONGEST)
        worth_it = commands < _LARGE and self._rate * gathering >= 1
        self._pause = gathering if worth_it else 0.0

    @property
    def pause(self) -> float:
        """How long to wait before the next fetch: 0 unless at least one command more is to be expected by then."""
        return self._pause
