"""Which sessions a sample holds: told by a hash that Postgres can take as well (md5, for spreading only)."""

import hashlib
import math
from typing import Final

_BITS: Final = 28
_DIGITS: Final = _BITS // 4


def below_of(sample: float) -> int | None:
    """The bound under which hashes belong to a sample of this size, 0 < sample <= 1; None for all."""
    return None if sample >= 1 else math.ceil(sample * 2**_BITS)


def sampled(key: bytes | None, below: int | None) -> bool:
    """Whether a record with this key is in the sample. Records without a key always are."""
    if below is None or key is None:
        return True
    return int(hashlib.md5(key, usedforsecurity=False).hexdigest()[:_DIGITS], 16) < below
