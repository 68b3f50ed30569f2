"""A key store in a separate Postgres: table ``waypost_keys.session_keys``. Needs asyncpg.

It must not be the database of sessions, whose backups would bring deleted keys back.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from waypost.arguments import require_text, require_timeout, require_whole
from waypost.encryption.key_store import PAGE, StoredKey, not_ready
from waypost.errors import KeyStoreError, WaypostError
from waypost.shards import server_name
from waypost.statements import load_statement

_VERSION: Final = 1
_LOCK: Final = 0x77617970_6B657973  # "waypkeys"
_statement = partial(load_statement, "waypost.encryption")


class _Connection:
    """The connection of one event loop. Tasks use it one at a time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.open: Any = None

    @property
    def is_open(self) -> bool:
        """True if there is a connection that was not lost."""
        return self.open is not None and not self.open.is_closed()


class PostgresKeyStore:
    """Key store in Postgres. One connection for each event loop is made when it is first needed.

    Args:
        dsn: The address of the database. It is not that of the sessions.
        timeout: Seconds that a connect or a statement may take.
        statement_cache_size: 0 behind a pooler such as pgbouncer in transaction mode.
    """

    def __init__(self, dsn: str, *, timeout: float = 10, statement_cache_size: int = 0) -> None:
        require_text("dsn", dsn)
        require_timeout(timeout)
        require_whole("statement_cache_size", statement_cache_size, 0)
        self._dsn = dsn
        self._timeout = timeout
        self._cache_size = statement_cache_size
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connection] = WeakKeyDictionary()
        self._deployment: str | None = None

    def __repr__(self) -> str:
        return f"<PostgresKeyStore: {self.described}>"

    @property
    def described(self) -> str:
        """Description of where the store is, without user and password."""
        return f"schema 'waypost_keys' of {server_name(self._dsn)}"

    async def initialize(self) -> bool:
        """Create schema and tables, and give the store an id. Return False if it had one."""
        async with self._connected() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
            await connection.execute(_statement("initialize"))
            made = await connection.fetchval(_statement("name_store"), _VERSION, str(uuid4()))
        return made is not None

    async def deployment(self) -> str:
        """Return the random id that the store got when it was made."""
        if self._deployment is None:
            row = await self._fetch_row("store")
            if row is None:
                raise not_ready(self.described)
            if row["version"] != _VERSION:
                raise KeyStoreError(
                    f"{self.described} was made by another version of Waypost (format {row['version']}). No key was "
                    "read or written"
                )
            self._deployment = str(row["deployment"])
        return self._deployment

    async def find(self, session_ids: Collection[str]) -> dict[str, StoredKey]:
        """Return the keys and tombstones of these sessions."""
        rows = await self._fetch("find", list(session_ids))
        return {row["session_id"]: _key(row) for row in rows}

    async def create(self, key: StoredKey) -> StoredKey:
        """Store a session's first key, and return what the store holds for that session now."""
        await self._fetch("create", key.session_id, key.key_id, key.wrapping_key, key.wrapped, key.created_at)
        # A separate statement: only it sees the row of a faster caller.
        rows = await self._fetch("find", [key.session_id])
        if not rows:
            raise KeyStoreError(
                f"The key of session {key.session_id!r} was removed from {self.described} while it was read"
            )
        return _key(rows[0])

    async def replace(self, old: StoredKey, new: StoredKey) -> bool:
        """Put a key that was wrapped again in the place of ``old``, if that is still there."""
        replaced = await self._fetch_row(
            "replace", old.session_id, old.key_id, old.wrapped, new.wrapping_key, new.wrapped
        )
        return replaced is not None

    async def erase(self, session_id: str, at: datetime) -> StoredKey:
        """Delete a session's key, and return the tombstone that stays."""
        return _key(await self._fetch_row("erase", session_id, at))

    async def page(self, after: str | None = None, limit: int = PAGE) -> list[StoredKey]:
        """Return keys and tombstones in the order of session ids."""
        return [_key(row) for row in await self._fetch("page", after or "", limit)]

    async def close(self) -> None:
        """Close the connection of this event loop."""
        held = self._connections.pop(asyncio.get_running_loop(), None)
        if held is not None and held.open is not None:
            try:
                await held.open.close(timeout=self._timeout)
            except Exception as error:
                raise self._failure(error) from error

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        held = self._connections.get(asyncio.get_running_loop())
        reused = held is not None and held.is_open
        try:
            return await self._fetch_once(statement, *arguments)
        except KeyStoreError:
            held = self._connections.get(asyncio.get_running_loop())
            if not reused or held is None or held.is_open:
                raise
        # Postgres was restarted since the last call. All statements here may be repeated.
        return await self._fetch_once(statement, *arguments)

    async def _fetch_once(self, statement: str, *arguments: Any) -> list[Any]:
        async with self._connected() as connection:
            rows: list[Any] = await connection.fetch(_statement(statement), *arguments)
        return rows

    async def _fetch_row(self, statement: str, *arguments: Any) -> Any:
        rows = await self._fetch(statement, *arguments)
        return rows[0] if rows else None

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        held = self._connections.setdefault(asyncio.get_running_loop(), _Connection())
        async with held.lock:
            try:
                if not held.is_open:
                    held.open = await self._connect()
                yield held.open
            except WaypostError:
                raise
            except Exception as error:
                raise self._failure(error) from error

    async def _connect(self) -> Any:
        try:
            import asyncpg
        except ImportError:
            raise ImportError(
                "waypost.PostgresKeyStore needs asyncpg: install it with pip install 'waypost[encryption,reader]'"
            ) from None
        return await asyncpg.connect(
            self._dsn,
            timeout=self._timeout,
            command_timeout=self._timeout,
            statement_cache_size=self._cache_size,
        )

    def _failure(self, error: Exception) -> Exception:
        import asyncpg

        match error:
            case asyncpg.UndefinedTableError() | asyncpg.InvalidSchemaNameError():
                return not_ready(self.described)
            case asyncpg.InsufficientPrivilegeError() | asyncpg.InvalidAuthorizationSpecificationError():
                return KeyStoreError(f"{self.described} refused access: {error}. Check the role in the DSN")
            case asyncpg.exceptions.ClientConfigurationError() | ValueError() | OverflowError():
                return KeyStoreError(
                    "The DSN of the key store can't be used. Percent-encode : / @ in its parts"
                )
            case TimeoutError():
                return KeyStoreError(f"{self.described} did not answer within {self._timeout:g} s")
            case asyncpg.PostgresError() | asyncpg.InterfaceError() | OSError():
                return KeyStoreError(f"{self.described} can't be used: {error or type(error).__name__}")
        return error


def _key(row: Any) -> StoredKey:
    return StoredKey(**dict(row))
