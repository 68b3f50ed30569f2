"""Keep accepted commands on the local disk until Kafka has them.

Loaded only by publishers with a spool, because it brings sqlite3. May import the publisher's buffer, options and
pending commands, but neither its client nor its sender.
"""

from collections.abc import Callable
from pathlib import Path

from waypost.publisher.options import PublisherSettings
from waypost.publisher.pending import Pending
from waypost.publisher.spool.buffer import SpooledBuffer, SpoolShare
from waypost.publisher.spool.directory import claim
from waypost.publisher.spool.spooler import Spooler
from waypost.publisher.spool.write_through import ThroughBuffer


def open_spool(
    directory: Path,
    settings: PublisherSettings,
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
        SpoolShare(spooler.own, settings.max_spool_bytes, spooler.recovered, spooler.hint),
    )
    spooler.start(buffer)
    return spooler, buffer
