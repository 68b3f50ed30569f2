"""The authority for commands that concern a whole partition: the holder of one Ed25519 key. Pure.

The public key is named by a command in the log, never by a worker's configuration, so replay finds it again.
"""

from dataclasses import dataclass
from typing import Final

KEY_BYTES: Final = 32
_PRIME: Final = 2**255 - 19
_ORDER_8: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
# The y coordinates of the points whose order divides 8. Anybody can sign for such a key, and whether a signature
# counts would depend on the library that looks at it.
_SMALL_ORDER: Final = frozenset((0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8))


@dataclass(frozen=True, slots=True)
class Authority:
    """The authority of one partition.

    ``key`` is a public key; None while there is no authority and anybody may configure the partition. ``signed_at`` is
    the ``ce_time`` of the last command that needed a signature, in microseconds: the next one must be later, so that a
    signed command counts once. It is kept when the key is removed. ``skipped`` are the offsets of all commands that an
    authority had skipped, in the order of the log.
    """

    key: bytes | None = None
    signed_at: int | None = None
    skipped: tuple[int, ...] = ()


def key_problem(key: bytes) -> str | None:
    """Return why these bytes can't be an authority's public key, or None."""
    if len(key) != KEY_BYTES:
        return f"has {len(key)} bytes, an Ed25519 public key has {KEY_BYTES}"
    y = int.from_bytes(key, "little") & (2**255 - 1)
    if y >= _PRIME or y in _SMALL_ORDER:
        return "is not a key that only its holder can sign for: make one with 'waypost authority create-key'"
    return None
