"""An accepted command on its way to Kafka. Knows neither the queues it waits in nor the client that sends it."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from waypost.encryption.codec import Plain

_OVERHEAD: Final = 400  # what headers and objects, or a row, cost besides the body, in bytes


class Pending:
    """The content of a command's future record, and its place in the order of acceptance.

    ``session_id`` is None for a command of a whole partition, which ``partition`` then names. ``number``
    counts up in the order of acceptance and is given by the buffer. ``home`` is the spool's token for the
    file that holds the command as its ``row``, in ``stored`` bytes; it is None without a spool. ``tries``
    counts how often it was put into a batch. ``source`` is that of the publisher that accepted it, None for
    this one. ``plain`` is what is still to be encrypted, after which ``body_is_encrypted``.
    """

    __slots__ = (
        "body_is_encrypted",
        "command_id",
        "command_type",
        "home",
        "number",
        "partition",
        "plain",
        "row",
        "session_id",
        "size",
        "source",
        "stored",
        "time",
        "traceparent",
        "tries",
        "value",
    )

    def __init__(
        self,
        command_id: str,
        command_type: str,
        session_id: str | None,
        value: bytes,
        time: bytes,
        traceparent: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        self.command_id = command_id
        self.command_type = command_type
        self.session_id = session_id
        self.value = value
        self.time = time
        self.traceparent = traceparent
        self.partition = partition
        self.size = len(value) + _OVERHEAD
        self.number = self.row = self.stored = self.tries = 0
        self.home: object | None = None
        self.source: bytes | None = None
        self.plain: Plain | None = None
        self.body_is_encrypted = False

    def encrypted(self, value: bytes) -> None:
        """Replace the plain body with the encrypted one."""
        self.value = value
        self.size = len(value) + _OVERHEAD
        self.plain = None
        self.body_is_encrypted = True
