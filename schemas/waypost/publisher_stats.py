"""What a publisher counts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waypost.buffer import Buffer
    from waypost.outcomes import Outcomes
    from waypost.sender import Sender
    from waypost.spooler import Spooler


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of commands since the publisher was made, and its state now.

    ``accepted + recovered = delivered + failed + dropped + buffered``, where ``recovered`` are those that dead
    publishers left in the spool, and ``buffered`` those that Kafka has not acknowledged. Of these ``spooled``
    are on the disk, or just being written there. ``buffered_bytes`` is what is in memory, ``spooled_bytes`` what
    is on the disk.
    ``connected``: there is a connection, or was one until Kafka went away; ``waiting_seconds`` is how long Kafka
    has left the oldest batch unanswered, and ``last_error`` what went wrong since the last batch that it took.
    ``spool_error`` is what is wrong with the disk now.
    """

    accepted: int
    recovered: int
    delivered: int
    failed: int
    dropped: int
    buffered: int
    buffered_bytes: int
    spooled: int
    spooled_bytes: int
    connected: bool
    waiting_seconds: float
    last_error: str | None
    spool_error: str | None


def counted(
    buffer: "Buffer", outcomes: "Outcomes", sender: "Sender | None", spooler: "Spooler | None"
) -> PublisherStats:
    """What the parts of a publisher count now. ``sender`` is None before the start, ``spooler`` without a spool."""
    return PublisherStats(
        accepted=buffer.accepted,
        recovered=buffer.recovered,
        delivered=outcomes.delivered,
        failed=outcomes.failed,
        dropped=buffer.dropped,
        buffered=len(buffer),
        buffered_bytes=buffer.bytes,
        spooled=buffer.disk_count,
        spooled_bytes=buffer.disk_bytes,
        connected=sender is not None and sender.connected,
        waiting_seconds=0.0 if sender is None else sender.waiting_seconds(),
        last_error=None if sender is None else sender.last_error,
        spool_error=None if spooler is None else spooler.last_error,
    )
