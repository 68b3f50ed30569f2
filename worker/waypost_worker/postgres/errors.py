"""What asyncpg raises, in the terms of an owner. Programming errors pass through as they are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from waypost_worker.partition.ports import RefusedError, UnavailableError

# SQLSTATE classes of what passes by itself or with an operator's help, and says nothing about the statement:
# connection, authorization, rollback (deadlock, serialization), resources, intervention, system.
_PASSING_CLASSES: Final = ("08", "28", "40", "53", "57", "58")
_PASSING: Final = (
    "25006",  # the server became a standby
    "25P03",  # idle in a transaction for too long: this process was frozen
    "25P04",  # a transaction for too long
    "3D000",  # the database does not exist, just now or yet
    "55P03",  # a lock was not available in time
)
# What a server says that is no longer the primary, or is about to go. An address may lead to another one by now, but
# connections that are open stay where they are: 25006 comes from a server that was made read-only and from a standby,
# 0A000 from a standby if transactions are serializable, 57P01 to 57P03 from one that stops, crashes or starts.
_MAY_HAVE_MOVED: Final = ("0A000", "25006", "57P01", "57P02", "57P03")
_NO_SCHEMA: Final = ("3F000", "42P01")
_NO_RIGHT: Final = "42501"
_CLIENT_SIDE: Final = (OSError, TimeoutError, asyncpg.InternalClientError)


@asynccontextmanager
async def owner_errors(pool: Any) -> AsyncIterator[None]:
    """UnavailableError for what passes, RefusedError for what needs a person."""
    try:
        yield
    except _CLIENT_SIDE as error:
        raise _unavailable(error) from error
    except asyncpg.InterfaceError as error:
        if not _lost_connection(error, pool):
            raise
        raise _unavailable(error) from error
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state in _MAY_HAVE_MOVED:
            await pool.expire_connections()
        if state.startswith(_PASSING_CLASSES) or state in _PASSING:
            raise _unavailable(error) from error
        if state in _NO_SCHEMA:
            raise RefusedError(
                f"Postgres has no Waypost schema any more ({error}). Nothing was changed: restore it, or run "
                "'waypost migrate' to begin with an empty one"
            ) from error
        if state == _NO_RIGHT:
            raise RefusedError(
                f"Postgres does not allow this worker what it needs ({error}). Nothing was changed: grant its "
                "role select, insert, update and delete on all tables of the schema"
            ) from error
        raise


def _lost_connection(error: asyncpg.InterfaceError, pool: Any) -> bool:
    # asyncpg has one class for a connection that is gone and for a wrong call; only the text tells.
    text = str(error)
    return pool.is_closing() or "closed" in text or "released back to the pool" in text


def _unavailable(error: BaseException) -> UnavailableError:
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return UnavailableError(f"Postgres: {text}")
