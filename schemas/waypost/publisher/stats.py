"""The counts of a publisher."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waypost.publisher.buffer import Buffer
    from waypost.publisher.delivery import DeliveryTracker
    from waypost.publisher.encrypter import Encrypter
    from waypost.publisher.sender import Sender
    from waypost.publisher.spool.spooler import Spooler


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counts of a publisher's commands since it was created, and its current state.

    ``accepted + recovered = delivered + failed + dropped + set_aside + buffered``. ``recovered`` commands were left in
    the spool by dead publishers, and ``buffered`` ones are not acknowledged by Kafka. With a spool, ``spooled`` is the
    same: all of them are on the disk, and as many as fit in memory too. ``buffered_bytes`` are in memory,
    ``spooled_bytes`` on the disk. ``set_aside`` counts what is damaged in the spool and was not sent: it stays in files
    that end in ``.damaged``.

    ``connected`` says that there is a connection, or was one until Kafka became unreachable. ``waiting_seconds`` is how
    long Kafka has not answered the oldest batch, and ``last_error`` what has gone wrong since the last batch that it
    acknowledged. ``spool_error`` is the disk's current problem. ``waiting_for_keys`` counts the ``buffered`` commands
    that are held until the key store returns the keys of their sessions, and ``key_error`` is why it didn't.
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


def counted(
    buffer: "Buffer",
    outcomes: "DeliveryTracker",
    sender: "Sender | None",
    spooler: "Spooler | None",
    encrypter: "Encrypter | None" = None,
) -> PublisherStats:
    """Return the current counts of a publisher. ``sender`` is None before the start, ``spooler`` without a spool."""
    held, given_up = (0, 0) if encrypter is None else (len(encrypter), encrypter.dropped)
    return PublisherStats(
        accepted=buffer.accepted + held + given_up,
        recovered=0 if spooler is None else spooler.recovered,
        set_aside=0 if spooler is None else spooler.damaged,
        delivered=outcomes.delivered,
        failed=outcomes.failed,
        dropped=buffer.dropped + given_up,
        buffered=len(buffer) + held,
        buffered_bytes=buffer.bytes + (0 if encrypter is None else encrypter.bytes),
        spooled=0 if spooler is None else len(buffer),
        spooled_bytes=0 if spooler is None else spooler.bytes,
        connected=sender is not None and sender.connected,
        waiting_seconds=0.0 if sender is None else sender.waiting_seconds(),
        last_error=None if sender is None else sender.last_error,
        spool_error=None if spooler is None else spooler.last_error,
        waiting_for_keys=held,
        key_error=None if encrypter is None else encrypter.last_error,
    )
