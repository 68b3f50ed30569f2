"""Reading sessions back from Postgres: the reads of the in-memory manager, async, with paging and filters.

Read-only: a role with select on the schema is enough. Needs the extra ``reader`` (asyncpg).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self, TypeVar

import orjson

from waypost.session_reader import Page as Page
from waypost.session_reader import SessionReader as SessionReader
from waypost.session_reader import checked_limit

DEFAULT_SCHEMA: Final = "waypost"
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_SESSIONS: Final = 500
_PREFETCH: Final = 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as the listing shows it. ``counter`` is the highest number ever given."""

    session_id: str
    partition: int
    counter: int
    checkpoints: int
    policy: dict[str, Any] | None
    first_recorded_at: datetime
    last_recorded_at: datetime


class Reader:
    """A pool of read-only connections: ``async with waypost.Reader(dsn) as reader: …``

    ``schema`` is another one than ``waypost`` where a replay built a side schema. Statements take at most
    ``timeout`` seconds. Works behind pgbouncer in transaction mode with ``statement_cache_size=0``.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool_size: int = 4,
        timeout: float = 30,
        statement_cache_size: int = 100,
    ) -> None:
        if _SCHEMA_NAME.fullmatch(schema) is None:
            raise ValueError(f"the schema name {schema!r} must be a plain lower-case identifier")
        self._dsn = dsn
        self._schema = schema
        self._pool: Any = None
        self._options: dict[str, Any] = {
            "min_size": 0,
            "max_size": pool_size,
            "command_timeout": timeout,
            "timeout": timeout,
            "statement_cache_size": statement_cache_size,
        }
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def session(self, session_id: str) -> "SessionReader":
        """The reads of one session; it need not exist."""
        return SessionReader(self, session_id)

    async def sessions(
        self, *, prefix: str = "", limit: int = _SESSIONS, cursor: str = ""
    ) -> list[SessionInfo]:
        """Sessions by id, those that begin with ``prefix``; ``cursor`` is the last id of the page before."""
        rows = await self.fetch("sessions", cursor, prefix, checked_limit(limit))
        return [_session_info(row) for row in rows]

    async def session_info(self, session_id: str) -> SessionInfo | None:
        """What is known of a session, or None if no command of it was ever accepted."""
        rows = await self.fetch("session", session_id)
        return _session_info(rows[0]) if rows else None

    async def wait_for(self, token: tuple[int, int], timeout: float = 10) -> None:
        """Wait until the command with this (partition, offset) is applied: read your own writes.

        TimeoutError says how far the partition is.
        """
        partition, offset = token
        wait = 0.001
        position = 0
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            rows = await self.fetch("position", partition)
            position = rows[0]["next_offset"] if rows else 0
            if position > offset:
                return
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise TimeoutError(
                    f"partition {partition} is applied up to offset {position - 1}, not yet to {offset}, after "
                    f"{timeout} s: is a worker running?"
                )
            await asyncio.sleep(min(wait, left))
            wait = min(2 * wait, 0.1)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement of this library. Reading is harmless, so it survives lost connections."""
        sql = _statement(statement, self._schema)
        pool = await self._opened()

        async def read() -> list[Any]:
            rows: list[Any] = await pool.fetch(sql, *arguments)
            return rows

        return await self._on_a_living_connection(read)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Snapshot"]:
        """Statements that all see the same moment. Holds a connection and its transaction meanwhile."""
        pool = await self._opened()

        async def begin() -> tuple[Any, AsyncExitStack]:
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(pool.acquire())
                transaction = connection.transaction(isolation="repeatable_read", readonly=True)
                await stack.enter_async_context(transaction)
                return connection, stack.pop_all()
            raise AssertionError("the stack suppresses nothing")

        connection, transaction = await self._on_a_living_connection(begin)
        async with transaction:
            yield Snapshot(connection, self._schema)

    async def _on_a_living_connection(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        import asyncpg

        lost = (
            asyncpg.PostgresConnectionError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            ConnectionError,
        )
        # After a restart of Postgres each connection in the pool may be a dead one.
        for _ in range(self._options["max_size"]):
            try:
                return await attempt()
            except lost:
                continue
        return await attempt()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                try:
                    import asyncpg
                except ImportError:
                    raise ImportError(
                        "waypost.Reader needs asyncpg: install it with pip install 'waypost[reader]'"
                    ) from None
                self._pool = await asyncpg.create_pool(self._dsn, **self._options)
            return self._pool


class Snapshot:
    """Reads within one transaction."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement."""
        rows: list[Any] = await self._connection.fetch(_statement(statement, self._schema), *arguments)
        return rows

    def rows(self, statement: str, *arguments: Any) -> AsyncIterator[Any]:
        """Rows of a named statement, a few at a time."""
        cursor: AsyncIterator[Any] = self._connection.cursor(
            _statement(statement, self._schema), *arguments, prefetch=_PREFETCH
        )
        return cursor


def _session_info(row: Any) -> SessionInfo:
    policy = row["policy"]
    fields: dict[str, Any] = {**row, "policy": None if policy is None else orjson.loads(policy)}
    return SessionInfo(**fields)


@cache
def _statement(name: str, schema: str) -> str:
    text = files("waypost").joinpath("sql", f"{name}.sql").read_text()
    return text if schema == DEFAULT_SCHEMA else text.replace("waypost.", f'"{schema}".')
