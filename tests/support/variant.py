"""A record batch that no client would write, and what others need to make one."""

from dataclasses import dataclass
from typing import Final

import cramjam
from tests.support.hostile_batches import (
    GZIP,
    LZ4,
    SNAPPY,
    ZSTD,
    gzip_member,
    lz4_frame,
    records,
    snappy_xerial,
)

CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS, UNDECODABLE, TOO_LARGE = "records", "undecodable", "too-large"
THEN: Final = "records, then undecodable"


@dataclass(frozen=True)
class Variant:
    """A record batch and the answer of our reader; None if no broker accepts it.

    A ``bomb`` must not be unpacked without a limit.
    """

    codec: int
    name: str
    raw: bytes
    answer: str | None
    bomb: bool = False

    @property
    def accepted(self) -> bool:
        """Whether a broker accepts it."""
        return self.answer is not None

    @property
    def title(self) -> str:
        """Name that no other variant has."""
        return f"{CODECS[self.codec] if self.codec < len(CODECS) else self.codec}: {self.name}"


def packed(codec: int, data: bytes) -> bytes:
    """Return the data compressed as clients do it."""
    if codec == GZIP:
        return gzip_member(data)
    if codec == SNAPPY:
        return snappy_xerial(
            bytes(cramjam.snappy.compress_raw(data[at : at + 32_768])) for at in range(0, len(data), 32_768)
        )
    if codec == LZ4:
        return lz4_frame(data)
    if codec == ZSTD:
        return bytes(cramjam.zstd.compress(data))
    return data


THREE: Final = records(3)
