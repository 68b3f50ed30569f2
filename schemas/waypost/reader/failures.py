"""Translate asyncpg's failures for readers into errors of the library that say what to do.

Holds no password: of a DSN only host, port and database are ever named. asyncpg is imported when something has failed,
so it is there by then.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from waypost.errors import (
    AccessDeniedError,
    DatabaseUnavailableError,
    InvalidArgumentError,
    ReaderError,
    ReaderTimeoutError,
    WaypostError,
)
from waypost.shards import server_name
from waypost.statements import DEFAULT_SCHEMA

TIME_LIMITS: Final = {"25P04": "transaction_timeout", "57014": "statement_timeout"}
"""Settings of Postgres by the SQLSTATE of what they end. The first one ends the connection as well."""

RIGHTS_ADVICE: Final = "'waypost migrate --roles' prints the SQL that gives a role its rights."
_POOLER: Final = (
    "A pooler that gives each transaction another connection, such as pgbouncer in transaction mode, needs "
    "statement_cache_size=0."
)


class Failures:
    """Translation of what goes wrong with one server."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.server = server_name(dsn)
        self._schema = schema

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise errors of asyncpg as errors of the library."""
        try:
            yield
        except Exception as error:
            self.reraise(error)

    def reraise(self, error: Exception, hint: str = "") -> NoReturn:
        """Raise the library's error for one of asyncpg's, or ``error`` itself if it is another one.

        ``hint`` says what to do if the server can't be reached.
        """
        if (known := self._known(error, hint)) is None:
            raise error
        if type(error) is ValueError or isinstance(error, UnicodeError):
            raise known from None  # it quotes what stands where a port should be, such as half of a password
        raise known from error

    def _known(self, error: Exception, hint: str) -> Exception | None:
        import asyncpg

        server = self.server
        match error:
            case WaypostError():
                return None
            case asyncpg.DataError():
                return InvalidArgumentError(f"{server} can't take an argument of this read: {error}")
            case asyncpg.exceptions.ClientConfigurationError():
                return InvalidArgumentError(f"The DSN can't be used: {error}. Nothing was read.")
            case UnicodeError():
                return InvalidArgumentError(
                    "The DSN can't be used: no host can have a name that is in it. Nothing was read. Percent-encode "
                    "the characters : / @ in its user name and password."
                )
            case ValueError() | OverflowError():
                return InvalidArgumentError(
                    "The DSN can't be used: a port in it is not a number from 1 to 65535. Nothing was read. "
                    "Percent-encode the characters : / @ in its user name and password."
                )
            case asyncpg.InvalidAuthorizationSpecificationError():
                return AccessDeniedError(
                    f"{server} refused the login: {error}. Check user and password in the DSN."
                )
            case asyncpg.InsufficientPrivilegeError():
                advice = getattr(error, "hint", None) or RIGHTS_ADVICE
                return AccessDeniedError(f"{server} denied a read: {error.args[0]}. {advice}")
            case asyncpg.InvalidCatalogNameError():
                return ReaderError(
                    f"{server} does not exist: {error}. Create the database, or correct the DSN."
                )
            case (
                asyncpg.UndefinedTableError()
                | asyncpg.InvalidSchemaNameError()
                | asyncpg.UndefinedColumnError()
            ):
                named = (
                    "Waypost schema" if self._schema == DEFAULT_SCHEMA else f"Waypost schema {self._schema!r}"
                )
                return ReaderError(
                    f"{server} has no {named} of this version: {error}. Run 'waypost migrate'."
                )
            case asyncpg.InvalidSQLStatementNameError() | asyncpg.DuplicatePreparedStatementError():
                return ReaderError(f"{server} lost a prepared statement: {error}. {_POOLER}")
            case _ if took_too_long(error):
                said = last_word(error)
                setting = TIME_LIMITS[getattr(said, "sqlstate", "")]
                return ReaderTimeoutError(
                    f"{server} canceled a read: {said}. Narrow it, read in pages, or raise {setting} for the role."
                )
            case TimeoutError():
                return ReaderTimeoutError(str(error) or f"{server} did not answer in time.")
            case _ if is_lost(error) or isinstance(error, OSError):
                text = f"{server} can't be reached: {reason(error)}. {hint}"
                return DatabaseUnavailableError(text.rstrip())
            case asyncpg.PostgresError():
                return ReaderError(f"{server} failed to answer a read: {type(error).__name__}: {error}")
        return None


def last_word(error: Exception) -> Exception:
    """Return the server's message when it ended the connection, if there was one, or ``error`` itself."""
    import asyncpg

    said = error.__cause__
    if isinstance(error, asyncpg.ConnectionDoesNotExistError) and isinstance(said, asyncpg.PostgresError):
        return said
    return error


def took_too_long(error: Exception) -> bool:
    """Tell whether the server ended a statement or a transaction by one of its time limits."""
    return getattr(last_word(error), "sqlstate", None) in TIME_LIMITS


def is_lost(error: Exception) -> bool:
    """Tell whether the connection is gone, or could not be made; another one may work."""
    import asyncpg

    # One is an InterfaceError, the other ends the connection, but each attempt would end in it.
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError) or took_too_long(error):
        return False
    return isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.AdminShutdownError
        | asyncpg.CrashShutdownError
        | asyncpg.CannotConnectNowError
        | asyncpg.TooManyConnectionsError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | ConnectionError,
    )


def is_missing_or_denied(error: WaypostError) -> bool:
    """Tell whether a read failed because its table is missing, or may not be read by this role."""
    import asyncpg

    return isinstance(error.__cause__, asyncpg.UndefinedTableError | asyncpg.InsufficientPrivilegeError)


def reason(error: BaseException) -> str:
    """Return why a server can't be reached, in a few words."""
    if type(error).__name__ == "TargetServerAttributeNotMatched":  # asyncpg is not imported here
        return "no server that the DSN names is one that its target_session_attrs accepts"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"it shows a certificate that is not trusted here: {error.verify_message}"
    if isinstance(error, FileNotFoundError | PermissionError):
        return f"{error.filename or 'a file or socket that the DSN names'}: {error.strerror}"
    if isinstance(error, socket.gaierror):
        return f"its host name can't be looked up: {error.strerror}"
    number = getattr(error, "errno", None)
    # The numbers of an SSLError are not the system's.
    if number and not isinstance(error, ssl.SSLError):
        return os.strerror(number)
    return str(error) or "no answer in time"
