"""Shares of sessions, defined by a hash that Postgres can compute as well (md5, for spreading only).

A sample is a share that begins at 0, so it always has the same sessions, and a larger one has them, too. If there are
too many sessions for the memory, they are divided into shares.
"""

import hashlib
import math
from typing import Final, NamedTuple

_BITS: Final = 28
_DIGITS: Final = _BITS // 4


class Share(NamedTuple):
    """Hashes from ``low`` up to, and without, ``high``."""

    low: int = 0
    high: int = 2**_BITS

    def holds(self, spread: int) -> bool:
        """Return whether this hash is in it."""
        return self.low <= spread < self.high

    @property
    def whole(self) -> bool:
        """Return whether it contains everything."""
        return self == WHOLE

    def first_half(self) -> "Share":
        """The lower half; itself if it can't be divided."""
        return Share(self.low, max(self.low + 1, (self.low + self.high) // 2))

    def following(self, high: int, times: int = 1) -> "Share":
        """Return a share this many times as large that follows it, but not beyond ``high``."""
        return Share(self.high, min(high, self.high + times * (self.high - self.low)))


WHOLE: Final = Share()


def share_of(sample: float) -> Share:
    """The share that is a sample of this size, 0 < sample <= 1."""
    return Share(0, min(WHOLE.high, math.ceil(sample * WHOLE.high)))


def spread_of(key: bytes | None, offset: int = 0) -> int:
    """Return the hash of a record's key, or of its offset if it has none, because only rejected commands are stored
    that way.
    """
    text = b"%d" % offset if key is None else key
    return int(hashlib.md5(text, usedforsecurity=False).hexdigest()[:_DIGITS], 16)
