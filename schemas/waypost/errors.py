"""Every error that the library raises on purpose, derived from :class:`WaypostError`.

Errors of the Kafka and Postgres clients never leave the library: one of these is raised from them.
"""

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


class KafkaUnavailableError(WaypostError, ConnectionError):
    """Failure to reach any broker, or to get an answer. Try again later, or correct ``bootstrap_servers``."""


class AccessDeniedError(WaypostError):
    """Refusal of a login, a certificate or a permission, by Kafka or by Postgres. Trying again does not help."""


class SubscriberError(WaypostError):
    """Failure to read results for another reason, which Kafka names. The subscriber's position is kept."""


class DeadLetterError(WaypostError):
    """Failure to write to the dead-letter topic an event that its handler could not handle.

    The event is not lost: the subscriber's position stays before it. The handler's error is the ``__cause__``.
    """


class BufferFullError(WaypostError):
    """A full buffer of a publisher with ``on_full="raise"``. The command was not accepted."""


class SpoolError(WaypostError):
    """A spool on the local disk that can't be used; the message says which file, why, and what was kept."""


class PublisherClosedError(WaypostError):
    """A call on a publisher that is closed or was never started. The command was not accepted."""


class DeliveryError(WaypostError):
    """Loss of an accepted command, which Kafka refused for good or the publisher gave up.

    ``command_id`` names the command.
    """

    def __init__(self, command_id: str, message: str) -> None:
        super().__init__(message)
        self.command_id = command_id


class ResultTimeoutError(WaypostError, TimeoutError):
    """Absence of a command's result within the timeout. The command was accepted and may still be applied.

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


class ReaderError(WaypostError):
    """Failure of a read from Postgres. Reads change nothing, so it is safe to repeat one."""


class ReaderClosedError(ReaderError):
    """A read on a reader that is closed."""


class DatabaseUnavailableError(ReaderError, ConnectionError):
    """Failure to reach Postgres, or loss of its connection. Try again later, or correct the DSN."""


class ReaderTimeoutError(ReaderError, TimeoutError):
    """A read, or a wait for a command to be applied, that took longer than it may."""


class ShardMapError(WaypostError):
    """A list of databases that do not belong together, or are in another order. Nothing was changed."""
