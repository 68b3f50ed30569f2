"""What a publisher counts."""

from dataclasses import dataclass


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
