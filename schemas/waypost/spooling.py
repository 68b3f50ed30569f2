"""Opens the spool of a publisher: claims the files, and puts buffer and thread together.

Imported only where a publisher has a spool, for it brings sqlite3.
"""

from collections.abc import Callable
from pathlib import Path

from waypost.publisher.options import Settings
from waypost.publisher.pending import Pending
from waypost.spool_buffer import SpooledBuffer
from waypost.spool_directory import claim
from waypost.spooler import Spooler
from waypost.through_buffer import ThroughBuffer


def open_spool(
    directory: Path,
    settings: Settings,
    topic: str,
    source: bytes,
    wake: Callable[[], None],
    on_drop: Callable[[Pending], None],
    sending: Callable[[], bool],
) -> tuple[Spooler, SpooledBuffer]:
    """The running spooler and its buffer. Takes as long as reading what dead publishers left.

    Raises:
        SpoolError: the directory can't be used.
    """
    claimed = claim(directory, topic, source, fsync=settings.spool_fsync)
    spooler = Spooler(claimed, settings.spool_after, settings.adopt_after, sending)
    kind = ThroughBuffer if settings.durability == "spool" else SpooledBuffer
    buffer = kind(
        settings.max_buffer_count,
        settings.max_buffer_bytes,
        settings.on_full,
        wake,
        on_drop,
        own=spooler.own,
        max_disk_bytes=settings.max_spool_bytes,
        recovered=spooler.recovered,
        hint=spooler.hint,
    )
    spooler.start(buffer)
    return spooler, buffer
