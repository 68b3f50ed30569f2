"""Translate asyncpg's errors into an owner's terms. Programming errors pass through unchanged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from waypost.reader.failures import TIME_LIMITS, last_word
from waypost_worker.partition.ports import OwnerError, RefusedError, TimedOutError, UnavailableError

# SQLSTATE classes of what passes by itself or with an operator's help, and says nothing about the statement:
# connection, authorization, rollback (deadlock, serialization), resources, intervention, system.
_PASSING_CLASSES: Final = ("08", "28", "40", "53", "57", "58")
_PASSING: Final = (
    "25006",  # the server became a standby
    "25P03",  # idle in a transaction for too long: this process was frozen
    "3D000",  # the database does not exist, just now or yet
    "55P03",  # a lock was not available in time
)
_OUR_LIMIT: Final = "WAYPOST_REQUEST_TIMEOUT of the workers"
# Errors after which connections are replaced. The address may lead to another server by now, but connections that are
# open stay where they are. 25006 comes from a server that was made read-only and from a standby, 0A000 from a standby
# if transactions are serializable, 57P01 to 57P03 from a server that stops, crashes or starts.
_OUTDATED: Final = ("0A000", "25006", "57P01", "57P02", "57P03")
# A statement that was prepared before is not there, or another one of its name is.
_LOST_STATEMENT: Final = ("26000", "42P05")
_NO_SCHEMA: Final = ("3F000", "42P01")
_NO_RIGHT: Final = "42501"
_CLIENT_SIDE: Final = (OSError, asyncpg.InternalClientError)

POOLER_ADVICE: Final = (
    "a pooler that gives each transaction another server connection, such as pgbouncer in transaction mode, needs "
    "WAYPOST_POSTGRES_STATEMENT_CACHE=0"
)


def is_outdated(error: BaseException) -> bool:
    """Tell whether a server answered so that a new connection may lead to another one."""
    return getattr(error, "sqlstate", None) in _OUTDATED


def explained(error: Exception) -> Exception:
    """Return an error that says what to do, if this one comes from a pooler that mixed up prepared statements."""
    if getattr(error, "sqlstate", None) not in _LOST_STATEMENT:
        return error
    said = UnavailableError(f"Postgres mixed up prepared statements ({error.args[0]}): {POOLER_ADVICE}")
    said.__cause__ = error
    return said


@asynccontextmanager
async def owner_errors(pool: Any) -> AsyncIterator[None]:
    """UnavailableError for what passes, TimedOutError for what took too long, RefusedError for what needs a person."""
    try:
        yield
    except TimeoutError as error:
        if error.errno is not None:  # the system's, of a connection
            raise _unavailable(error) from error
        raise TimedOutError("Postgres: no answer in time", _OUR_LIMIT) from error
    except _CLIENT_SIDE as error:
        raise _unavailable(error) from error
    except asyncpg.InterfaceError as error:
        if not _lost_connection(error, pool):
            raise
        raise _unavailable(error) from error
    except asyncpg.PostgresError as error:
        said = last_word(error)
        if is_outdated(said):
            await pool.expire_connections()
        if (meaning := _meaning(said)) is None:
            raise
        raise meaning from error


@asynccontextmanager
async def owner_connection(pool: Any, timeout: float) -> AsyncIterator[Any]:
    """A connection of ``pool`` for an owner's call, which takes at most ``timeout`` seconds; errors are an owner's."""
    async with owner_errors(pool), asyncio.timeout(timeout), pool.acquire() as connection:
        yield connection


def _meaning(error: Exception) -> OwnerError | None:
    """Return what a server's error means to an owner; None for a programming error."""
    state = getattr(error, "sqlstate", None) or ""
    if state in TIME_LIMITS:
        limit = f"{TIME_LIMITS[state]} for the workers' role in Postgres"
        return TimedOutError(f"Postgres: {type(error).__name__}: {error}", limit)
    if state.startswith(_PASSING_CLASSES) or state in _PASSING:
        return _unavailable(error)
    if state in _NO_SCHEMA:
        return RefusedError(
            f"Postgres no longer has a Waypost schema ({error}). Nothing was changed: restore it, or run "
            "'waypost migrate' to start with an empty one"
        )
    if state in _LOST_STATEMENT:
        return RefusedError(
            f"Postgres mixed up prepared statements ({error.args[0]}). Nothing was changed: {POOLER_ADVICE}"
        )
    if state == _NO_RIGHT:
        return RefusedError(
            f"Postgres does not allow this worker what it needs ({error}). Nothing was changed: grant its "
            "role select, insert, update and delete on all tables of the schema"
        )
    return None


def _lost_connection(error: asyncpg.InterfaceError, pool: Any) -> bool:
    # asyncpg has one class for a lost connection and for a wrong call; only the text distinguishes them.
    text = str(error)
    return pool.is_closing() or "closed" in text or "released back to the pool" in text


def _unavailable(error: BaseException) -> UnavailableError:
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return UnavailableError(f"Postgres: {text}")
