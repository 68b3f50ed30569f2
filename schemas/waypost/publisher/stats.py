"""What a publisher counts."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of a publisher's commands since it was made, and its state now.

    ``accepted + recovered = delivered + failed + dropped + set_aside + buffered``. ``recovered`` commands were left in
    the spool by dead publishers, and ``buffered`` ones are not acknowledged by Kafka. With a spool, ``spooled`` is the
    same: all of them are on the disk, and as many as fit in memory too. ``buffered_bytes`` are in memory,
    ``spooled_bytes`` on the disk. ``set_aside`` counts what is damaged in the spool and was not sent: it stays in files
    that end in ``.damaged``.

    ``connected`` says that there is a connection, or was one until Kafka became unreachable. ``waiting_seconds`` is how
    long Kafka has not answered the oldest batch, and ``last_error`` what has gone wrong since the last batch that it
    acknowledged. ``spool_error`` is what is wrong with the disk now. ``waiting_for_keys`` counts the ``buffered``
    commands that are held until the key store gives the keys of their sessions, and ``key_error`` is why it did not.
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
    set_aside: int = 0
    waiting_for_keys: int = 0
    key_error: str | None = None

    def __repr__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"PublisherStats({', '.join(f'{name}={value!r}' for name, value in values if value)})"
