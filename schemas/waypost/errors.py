"""Every error that the library raises on purpose, derived from :class:`WaypostError`."""

from typing import Literal

Reached = Literal["waiting", "sent", "acknowledged"]


class WaypostError(Exception):
    """Base of all errors of this library."""


class InvalidCommandError(WaypostError, ValueError):
    """A command that breaks the contract.

    ``code`` is one of the rejection codes of the contract (``invalid-envelope``, ``invalid-body``,
    ``too-large``, ``unsupported-type``, ``misrouted``, ``unknown-checkpoint``, ``conflict``, ``pin-limit``).
    The publisher raises it at the call; the worker turns it into a ``waypost.command.rejected`` result.
    """

    def __init__(self, code: str, message: str) -> None:
        # A message may quote what was sent; it is shown on terminals and stored as text, so it stays printable.
        message = message if message.isprintable() else _printable(message)
        super().__init__(message)
        self.code = code
        self.message = message


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class UnknownCheckpointError(WaypostError, LookupError):
    """A checkpoint id that the session does not hold."""


class NaiveDatetimeError(WaypostError, ValueError):
    """A datetime without a time zone, which could mean two different moments."""


class ShardMapError(WaypostError):
    """The databases are not those, or not in the order, that belong together; nothing was changed."""


class BufferFullError(WaypostError):
    """The publisher's buffer is full and its policy is to say so; the command was not accepted."""


class SpoolError(WaypostError):
    """A spool on the local disk can't be used; the message says which file, why, and what was kept."""


class PublisherClosedError(WaypostError):
    """A call on a publisher that is closed or was never started; the command was not accepted."""


class ReaderClosedError(WaypostError):
    """A read on a reader that is closed."""


class DeliveryError(WaypostError):
    """An accepted command that Kafka refused for good; ``command_id`` names it."""

    def __init__(self, command_id: str, message: str) -> None:
        super().__init__(message)
        self.command_id = command_id


class ResultTimeoutError(WaypostError, TimeoutError):
    """No result of a command came in time. The command was accepted and may still be applied.

    ``reached`` is how far it is known to have come: ``"waiting"`` in the publisher, ``"sent"`` to ``partition``
    and not answered, or ``"acknowledged"`` at ``offset`` of ``partition``.
    """

    def __init__(
        self,
        command_id: str,
        message: str,
        reached: Reached,
        partition: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.command_id = command_id
        self.reached = reached
        self.partition = partition
        self.offset = offset


class DeadLetterError(WaypostError):
    """An event that its handler could not handle was not taken by the dead-letter topic either.

    It is not lost: the subscriber's position stays before it. The handler's error is the ``__cause__``.
    """
