"""Keep accepted commands on the local disk until Kafka has them.

Loaded only by publishers with a spool. May import ``publisher.options``, ``publisher.pending``, ``wire``, ``model``,
``kafka`` and the modules next to them, but neither the publisher's client nor its sender.
"""

from pathlib import Path
from typing import Final

from waypost.publisher.options import PublisherSettings
from waypost.publisher.spool.directory import claim
from waypost.publisher.spool.spooler import Spooler

# A file is removed when all of it is in Kafka: small ones go soon, large ones are changed seldom.
_SEGMENT_BYTES: Final = 8 * 1024 * 1024
_SMALLEST_SEGMENT: Final = 64 * 1024
_SEGMENTS: Final = 16  # at least, in a small spool that is full


def open_spool(directory: Path, settings: PublisherSettings, topic: str, source: bytes) -> Spooler:
    """Open a spool, and take over what dead publishers left, which takes as long as reading it once.

    Raises:
        SpoolError: The directory can't be used.
    """
    size = min(_SEGMENT_BYTES, max(_SMALLEST_SEGMENT, settings.max_spool_bytes // _SEGMENTS))
    claimed = claim(directory, topic, source, segment_bytes=size)
    return Spooler(claimed, settings.max_spool_bytes, fsync=settings.spool_fsync)
