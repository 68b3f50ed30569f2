"""Every error that the library raises on purpose, derived from :class:`WaypostError`.

Errors of the Kafka and Postgres clients never leave the library: one of these is raised from them. Two things stay
Python's own: an ImportError names the extra that is missing, and a name or a parameter that does not exist is an
AttributeError or a TypeError.
"""

import re
from collections.abc import Iterable
from reprlib import Repr
from typing import Final, Literal

Reached = Literal["waiting", "sent", "acknowledged"]


LONGEST_MESSAGE: Final = 4000  # characters of an error
_LONGEST_SHOWN: Final = 100  # characters of an argument in it
#: Characters that str.isprintable accepts and terminals show as nothing: fillers, joiners and variation selectors that
#: no emoji needs. A text can hide another one in them.
_HIDDEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0000-\U000e0fff]"
)
_repr: Final = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = _LONGEST_SHOWN


def printable(text: str, keep: str = "") -> str:
    """Escape characters that could control a terminal, reorder its text or hide in it, except those in ``keep``."""
    if text.isprintable() and _HIDDEN.search(text) is None:
        return text
    return "".join(
        each
        if each in keep or (each.isprintable() and _HIDDEN.match(each) is None)
        else each.encode("unicode_escape").decode()
        for each in text
    )


def quoted(value: object) -> str:
    """Quote an argument in a message, printable and shortened, no matter what it is."""
    try:
        text = _repr.repr(value)
    except Exception:  # somebody else's __repr__
        text = f"<{type(value).__name__}>"
    return printable(text if len(text) <= 2 * _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return `` Did you mean X?`` with the known name that is most similar; empty if none is.

    Args:
        name: The given name.
        known: The names to choose from.
        prefix: The common prefix of the names; it is shown, not compared.
    """
    from difflib import get_close_matches  # most programs never need it

    # Below this, a setting that only workers have would be taken for a mistyped one of clients.
    found = get_close_matches(name, known, n=1, cutoff=0.75)
    return f" Did you mean {prefix}{found[0]}?" if found else ""


def _bounded(message: object) -> object:
    if not isinstance(message, str):
        return message
    # Shortened first, so that escaping what is endless takes no time, and again, as escapes are longer.
    return shortened(printable(shortened(message), keep="\n"))


def shortened(message: str) -> str:
    """Leave out the middle of a message that is too long."""
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = LONGEST_MESSAGE // 2 - 2
    return f"{message[:half]} … {message[-half:]}"


class WaypostError(Exception):
    """Base of all errors of this library.

    A message may quote external input, so it is printable and bounded.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*map(_bounded, arguments))


class SettingsError(WaypostError):
    """Settings that can't be used. The message is one line that says which and why."""


class InvalidArgumentError(WaypostError, ValueError, TypeError):
    """An argument of the wrong type or with a value that can't be used. Nothing was sent.

    Code that catches ValueError or TypeError catches it too.
    """


class InvalidCommandError(WaypostError, ValueError):
    """A command that breaks the contract.

    ``code`` is one of the rejection codes of the contract (``invalid-envelope``, ``invalid-body``,
    ``too-large``, ``unsupported-type``, ``misrouted``, ``unknown-checkpoint``, ``conflict``, ``pin-limit``,
    ``encryption-required``, ``erased``).
    The publisher raises it at the call; the worker turns it into a ``waypost.command.rejected`` result.
    """

    def __init__(self, code: str, message: str) -> None:
        # A message may quote what was sent; it is shown on terminals and stored as text, so it stays printable.
        # Rejections are part of the state that a replay compares, so this must not depend on what is hidden.
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
    """Loss of an accepted command, which Kafka permanently rejected or the publisher dropped.

    ``command_id`` names the command.
    """

    def __init__(self, command_id: str, message: str) -> None:
        super().__init__(message)
        self.command_id = command_id


class ResultTimeoutError(WaypostError, TimeoutError):
    """Absence of a command's result within the timeout. The command was accepted and may still be applied.

    ``reached`` is how far it is known to have gotten: ``"waiting"`` in the publisher, ``"sent"`` to ``partition`` and
    not answered, or ``"acknowledged"`` at ``offset`` of ``partition``.
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
    """A read, or a wait for a command to be applied, that exceeded its timeout."""


class ShardMapError(WaypostError):
    """A list of databases that do not belong together, or are in the wrong order. Nothing was changed."""


class EncryptionError(WaypostError):
    """Base of what goes wrong with encrypted data or its keys. No data was returned, and none was sent unencrypted."""


class KeyStoreError(EncryptionError):
    """A key store that can't be reached, read or changed. Keys that are in it stay as they are."""


class KeyWrappingError(EncryptionError):
    """A session key that can't be wrapped or unwrapped: the wrapping key is another one, or can't be reached."""


class MissingKeyError(EncryptionError):
    """Absence of a session's key from the key store, or another key in its place, as after restoring an old store."""


class KeyErasedError(EncryptionError):
    """A session whose key was deleted for good. Data encrypted with it can never be read again."""


class KeyNotLoadedError(EncryptionError):
    """A call that can't wait, for a session whose key is not in memory. The command was not accepted."""


class UnauthenticDataError(EncryptionError):
    """Encrypted data that does not authenticate: it was changed or cut, or encrypted with another key."""


class MovedDataError(UnauthenticDataError):
    """Encrypted data that was not made for the session, checkpoint or deployment where it was found."""


class PlaintextError(UnauthenticDataError):
    """Data that is not encrypted, where only encrypted data counts."""
