"""Topic names, the partition that a session belongs to, and places in the command topic. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from waypost.arguments import require_text
from waypost.errors import InvalidCommandError, quoted

DEFAULT_PREFIX: Final = "waypost"
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of a deployment's two topics: ``{prefix}.commands`` and ``{prefix}.results``."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        require_text("the topic prefix", self.prefix)
        legal = self.prefix.replace("-", "").replace("_", "").replace(".", "")
        if not (legal.isascii() and legal.isalnum() and len(self.prefix) <= 200):
            raise InvalidCommandError(
                "invalid-envelope",
                f"the topic prefix {quoted(self.prefix)} must be 1 to 200 of the characters a-z A-Z 0-9 . _ -",
            )

    @property
    def commands(self) -> str:
        """Name of the topic that agents publish to."""
        return f"{self.prefix}.commands"

    @property
    def results(self) -> str:
        """Name of the topic with the one result of each command."""
        return f"{self.prefix}.results"

    def transactional_id(self, partition: int) -> str:
        """Return the id whose producer epoch fences owners of a partition. No transaction uses it."""
        return f"{self.prefix}.{partition}"


class CommandPosition(NamedTuple):
    """Place of a command in the command topic, for :meth:`waypost.Reader.wait_for`."""

    partition: int
    offset: int


@lru_cache(maxsize=65_536)
def partition_of(session_id: str, partitions: int) -> int:
    """The partition of a session: Kafka's standard partitioner (murmur2) over the UTF-8 key."""
    return (murmur2(session_id.encode()) & 0x7FFFFFFF) % partitions


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit MurmurHash2 (org.apache.kafka.common.utils.Utils.murmur2), unsigned.

    Written here because the worker's core, which checks where a command belongs, must not import a Kafka client; a test
    compares it with the client's own.
    """
    length = len(key)
    hashed = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        hashed = hashed * _M & _MASK ^ k
    if whole < length:
        hashed ^= int.from_bytes(key[whole:], "little")
        hashed = hashed * _M & _MASK
    hashed ^= hashed >> 13
    hashed = hashed * _M & _MASK
    return hashed ^ hashed >> 15
