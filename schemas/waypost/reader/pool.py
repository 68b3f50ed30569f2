"""A pool of connections for reading: named statements that survive lost connections, and snapshots.

Owns limits, time-outs and coming back after Postgres was away; knows nothing of what is read. Works behind
pgbouncer in transaction mode: nothing is set for a session, and without a statement cache nothing is prepared
ahead. Needs asyncpg, which is imported when the first connection is made.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from waypost.backoff import Backoff
from waypost.errors import ReaderClosedError
from waypost.statements import DEFAULT_SCHEMA as DEFAULT_SCHEMA
from waypost.statements import check_schema_name, load_statement

_NO_WORD: Final = re.compile(r"\W")
_PREFETCH: Final = 20
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_POOLER: Final = (
    "a pooler that gives each transaction another connection, such as pgbouncer in transaction mode, "
    "needs statement_cache_size=0"
)
_T = TypeVar("_T")


class ReadPool:
    """At most ``size`` connections; a statement, a wait for a connection and a connect take ``timeout`` s each.

    A Postgres that was reached before and is away is tried for up to ``reconnect`` seconds; one that was never
    reached is an error at once.
    """

    def __init__(
        self, dsn: str, schema: str, size: int, timeout: float, reconnect: float, statement_cache_size: int
    ) -> None:
        if size < 1:
            raise ValueError(f"pool_size must be at least 1, not {size}")
        self._dsn = dsn
        self._schema = check_schema_name(schema)
        self._size = size
        self._timeout = timeout
        self._reconnect = reconnect
        self._cache_size = statement_cache_size
        self._pool: Any = None
        self._closed = False
        self._reached = False
        self._server = _server(dsn)
        self._opening = asyncio.Lock()

    async def open(self) -> Any:
        """The asyncpg pool; no connection is made yet. ImportError, with what to do, without asyncpg.

        ReaderClosedError after :meth:`close`: a pool that came back by itself would never be closed.
        """
        async with self._opening:
            if self._closed:
                raise ReaderClosedError("this reader is closed: make another one with waypost.Reader(dsn)")
            if self._pool is None:
                try:
                    import asyncpg
                except ImportError:
                    raise ImportError(
                        "waypost.Reader needs asyncpg: install it with pip install 'waypost[reader]'"
                    ) from None
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._size,
                    command_timeout=self._timeout,
                    timeout=self._timeout,
                    statement_cache_size=self._cache_size,
                    reset=_no_reset,
                )
            return self._pool

    async def close(self) -> None:
        """Close the connections, once what is under way has ended; for good."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement. Reading is harmless, so it is done again on another connection."""
        sql = statement_text(statement, self._schema)

        async def read() -> list[Any]:
            async with self._acquired() as connection:
                rows = await _rows(connection, sql, arguments, self._timeout)
            return rows

        return await self._on_a_living_connection(read)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["ReadTransaction"]:
        """Statements that all see the same moment. Holds a connection and its transaction meanwhile."""

        async def begin() -> tuple[Any, AsyncExitStack]:
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(self._acquired())
                transaction = connection.transaction(isolation="repeatable_read", readonly=True)
                await stack.enter_async_context(transaction)
                return connection, stack.pop_all()
            raise AssertionError("the stack suppresses nothing")

        connection, transaction = await self._on_a_living_connection(begin)
        async with transaction:
            yield ReadTransaction(connection, self._schema, self._timeout)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Any]:
        pool = await self.open()
        try:
            connection = await pool.acquire(timeout=self._timeout)
        except TimeoutError:
            raise TimeoutError(
                f"no connection to {self._server} within {self._timeout:g} s: it does not answer, or all {self._size} "
                "are in use (an export holds one until its end). Raise pool_size, or read less at once"
            ) from None
        try:
            yield connection
        finally:
            await pool.release(connection)

    async def _on_a_living_connection(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        await self.open()  # says what to install where asyncpg is missing
        import asyncpg

        lost = (
            asyncpg.PostgresConnectionError,
            asyncpg.AdminShutdownError,
            asyncpg.CrashShutdownError,
            asyncpg.CannotConnectNowError,
            asyncpg.TooManyConnectionsError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
            ConnectionError,
        )
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._reconnect
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        # After a restart of Postgres each connection in the pool may be a dead one: these are gone through at once.
        dead = self._size
        while True:
            try:
                found = await attempt()
            except lost as error:
                if self._closed:
                    await self.open()  # says so
                if dead > 0:
                    dead -= 1
                    continue
                if not self._reached or clock() >= deadline:
                    error.add_note(f"while reading from {self._server}")
                    raise
                await asyncio.sleep(backoff.next_wait())
            except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
                error.add_note(_POOLER)
                raise
            except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
                error.add_note(f"while connecting to {self._server}")
                raise
            else:
                self._reached = True
                return found


class ReadTransaction:
    """Reads within one transaction."""

    def __init__(self, connection: Any, schema: str, timeout: float) -> None:
        self._connection = connection
        self._schema = schema
        self._timeout = timeout

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement."""
        return await _rows(
            self._connection, statement_text(statement, self._schema), arguments, self._timeout
        )

    async def rows(self, statement: str, *arguments: Any) -> AsyncIterator[Any]:
        """Rows of a named statement, a few at a time; one reading of each statement at once.

        By SQL's own cursor: that of the protocol leaves a prepared statement behind, on a connection which a
        pooler gives to others.
        """
        cursor = f"reading_{_NO_WORD.sub('_', statement)}"
        sql = statement_text(statement, self._schema)
        await self._connection.execute(f"declare {cursor} no scroll cursor for {sql}", *arguments)
        try:
            while found := await _rows(
                self._connection, f"fetch {_PREFETCH} from {cursor}", (), self._timeout
            ):
                for row in found:
                    yield row
        except GeneratorExit:
            await self._connection.execute(f"close {cursor}")
            raise
        await self._connection.execute(f"close {cursor}")


async def _rows(connection: Any, sql: str, arguments: tuple[Any, ...], timeout: float) -> list[Any]:
    try:
        rows: list[Any] = await connection.fetch(sql, *arguments)
        return rows
    except TimeoutError:
        raise TimeoutError(
            f"a read took longer than {timeout:g} s and was cancelled: narrow it, read in pages, or raise timeout"
        ) from None


def _server(dsn: str) -> str:
    """Host, port and database of a DSN: what tells an operator which server it was, and no secret."""
    try:
        parts = urlsplit(dsn)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # several hosts, or a port of letters
        return "Postgres"
    return f"Postgres at {parts.hostname or 'the default host'}{port}{parts.path}"


async def _no_reset(_: Any) -> None:
    # Reading leaves nothing behind in a session, so the round trip that would reset it is saved.
    return None


def statement_text(name: str, schema: str) -> str:
    """Return a reader's statement, or that of another folder of the library, as in ``adapters/runs``."""
    folder, _, statement = name.rpartition("/")
    return load_statement(f"waypost.{folder or 'reader'}", statement, schema)
