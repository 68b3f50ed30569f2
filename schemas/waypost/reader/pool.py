"""A pool of connections for reading: named statements that survive lost connections, and snapshots.

Owns limits, time-outs and reconnecting after Postgres was unreachable; knows nothing about what is read. Works behind
pgbouncer in transaction mode: nothing is set for a session, and without a statement cache, nothing is prepared ahead.
Needs asyncpg, which is imported when the first connection is made.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from waypost.arguments import require_above_zero, require_timeout, require_whole
from waypost.backoff import Backoff
from waypost.errors import InvalidArgumentError, ReaderClosedError, ReaderError
from waypost.model.limits import text_problem
from waypost.reader.failures import Failures, is_lost
from waypost.statements import DEFAULT_SCHEMA as DEFAULT_SCHEMA
from waypost.statements import check_schema_name, load_statement

_NO_WORD: Final = re.compile(r"\W")
_PREFETCH: Final = 20
# The pool of asyncpg makes an object for each one when it is created.
_MOST_CONNECTIONS: Final = 10_000
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
# An address may lead to another server after a switch-over, and connections that are open stay where they are: a former
# primary answers reads as before, with rows that no longer change.
_CONNECTION_SECONDS: Final = 600.0
_T = TypeVar("_T")


class ReadPool:
    """At most ``size`` connections; a statement, a wait for a connection and a connect take ``timeout`` s each.

    If Postgres was reached before and is unreachable, reads retry for up to ``reconnect`` seconds; a server that was
    never reached is an immediate error. Connections are replaced every ten minutes, so that the pool follows its
    address to another server. If the DSN says ``target_session_attrs=read-write``, a connection whose server became
    read-only is replaced immediately.

    With a ``tenant``, each read is a separate transaction that names it, for the policies of row-level security.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        size: int,
        timeout: float,
        reconnect: float,
        statement_cache_size: int,
        tenant: str | None = None,
    ) -> None:
        require_whole("pool_size", size, 1, _MOST_CONNECTIONS)
        require_whole("statement_cache_size", statement_cache_size, 0)
        require_above_zero("timeout", timeout)
        require_timeout(reconnect, "reconnect", optional=False)
        # Not shown: there is a password in it.
        if text_problem(dsn or " ", len(dsn) + 1) is not None:
            raise InvalidArgumentError(
                "The DSN contains a control character or half a character, which no server accepts. Percent-encode it."
            )
        self._dsn = dsn
        self._schema = check_schema_name(schema)
        self._size = size
        self._timeout = timeout
        self._reconnect = reconnect
        self._cache_size = statement_cache_size
        self._name_tenant = None if tenant is None else _naming(tenant)
        self._pool: Any = None
        self._closed = False
        self._reached = False
        self._failures = Failures(dsn, schema)
        self._read_write = _session_attributes(dsn) == "read-write"
        self._replace_at = 0.0
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()

    @property
    def described(self) -> str:
        """Which schema of which server this is; no secret."""
        return f"{self._schema!r} in {self._failures.server}"

    @property
    def closed(self) -> bool:
        """Return whether it was closed, permanently."""
        return self._closed

    async def open(self) -> Any:
        """Return the asyncpg pool; no connection is made yet.

        Raises:
            ImportError: asyncpg is not installed.
            ReaderClosedError: After :meth:`close`, since a pool that came back by itself would never be closed.
            ReaderError: The pool belongs to another event loop that is still open, or to the parent process.
        """
        if self._loop is not None and os.getpid() != self._pid:
            raise ReaderError(
                "This reader was used before a fork, and its connections belong to the parent process. "
                "Nothing was read. Create a reader in this process."
            )
        if self._loop not in (None, asyncio.get_running_loop()):
            if not self._loop.is_closed():
                raise ReaderError(
                    "This reader is used on a different event loop than before, which its connections can't follow. "
                    "Create a reader for each event loop."
                )
            self._abandon()
        async with self._opening:
            if self._closed:
                raise ReaderClosedError("This reader is closed. Create another one with waypost.Reader(dsn).")
            if self._pool is None:
                try:
                    import asyncpg
                except ImportError:
                    raise ImportError(
                        "waypost.Reader needs asyncpg: install it with pip install 'waypost[reader]'"
                    ) from None
                self._loop = asyncio.get_running_loop()
                self._pid = os.getpid()  # it may have been made before a fork, and used after it only
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

    def _abandon(self) -> None:
        """Give up the connections of an event loop that was closed, as after each asyncio.run."""
        pool, self._pool, self._loop = self._pool, None, None
        self._opening = asyncio.Lock()
        for holder in getattr(pool, "_holders", ()):
            transport = getattr(getattr(holder, "_con", None), "_transport", None)
            # The loop that would close it is gone; its socket is not.
            if (sock := getattr(transport, "_sock", None)) is not None:
                sock.close()

    async def close(self) -> None:
        """Close the connections, once what is under way has ended; for good."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None and self._loop is asyncio.get_running_loop():
            with self._failures.translated():
                await pool.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement. Reading is harmless, so it is done again on another connection."""
        sql = statement_text(statement, self._schema)

        async def read() -> list[Any]:
            async with self._acquired() as connection:
                if self._name_tenant is None:
                    return await _rows(connection, sql, arguments, self._timeout)
                async with connection.transaction(readonly=True):
                    await connection.execute(self._name_tenant)
                    return await _rows(connection, sql, arguments, self._timeout)

        return await self._on_a_living_connection(read)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["ReadTransaction"]:
        """Run statements that all see the same moment. Holds a connection and its transaction until the end."""

        async def begin() -> tuple[Any, AsyncExitStack]:
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(self._acquired())
                transaction = connection.transaction(isolation="repeatable_read", readonly=True)
                await stack.enter_async_context(transaction)
                if self._name_tenant is not None:
                    await connection.execute(self._name_tenant)
                return connection, stack.pop_all()
            raise AssertionError("the stack suppresses nothing")

        connection, transaction = await self._on_a_living_connection(begin)
        # Failures within the block are the user's own, and are not examined.
        try:
            yield ReadTransaction(connection, self._schema, self._timeout, self._failures)
        except BaseException as error:
            with self._failures.translated():
                await transaction.__aexit__(type(error), error, error.__traceback__)
            raise
        with self._failures.translated():
            await transaction.aclose()

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Any]:
        pool = await self.open()
        await self._replace_old(pool)
        try:
            connection = await pool.acquire(timeout=self._timeout)
        except TimeoutError:
            raise TimeoutError(
                f"No connection to {self._failures.server} within {self._timeout:g} s: it does not answer, or all "
                f"{self._size} are in use (an export holds one until its end). Raise pool_size, or read less at a time."
            ) from None
        try:
            # The server reports this with its answers, so asking costs no round trip.
            reported = getattr(connection.get_settings(), "default_transaction_read_only", None)
            if self._read_write and reported == "on":
                await pool.expire_connections()
                raise ConnectionError(
                    "the server became read-only, and the DSN says target_session_attrs=read-write"
                )
            yield connection
        finally:
            await pool.release(connection)

    async def _replace_old(self, pool: Any) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._replace_at:
            if self._replace_at:
                await pool.expire_connections()
            self._replace_at = now + _CONNECTION_SECONDS

    async def _on_a_living_connection(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        await self.open()  # says what to install where asyncpg is missing
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._reconnect
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        # After a restart of Postgres, each connection in the pool may be dead, so these are tried without a pause.
        dead = self._size
        while True:
            try:
                found = await attempt()
            except Exception as error:
                if is_lost(error):
                    if self._closed:
                        await self.open()  # the error is already clear
                    if dead > 0:
                        dead -= 1
                        continue
                    if self._reached and clock() < deadline:
                        await asyncio.sleep(backoff.next_wait())
                        continue
                self._failures.reraise(error, self._hint())
            else:
                self._reached = True
                return found

    def _hint(self) -> str:
        if self._reached:
            return f"It was tried again for {self._reconnect:g} s."
        return "Check the DSN, and that the server is running."


class ReadTransaction:
    """Reads within one transaction."""

    def __init__(self, connection: Any, schema: str, timeout: float, failures: Failures) -> None:
        self._connection = connection
        self._schema = schema
        self._timeout = timeout
        self._failures = failures

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of a named statement."""
        with self._failures.translated():
            return await _rows(
                self._connection, statement_text(statement, self._schema), arguments, self._timeout
            )

    async def rows(self, statement: str, *arguments: Any) -> AsyncGenerator[Any, None]:
        """Yield the rows of a named statement, a few at a time. Only one iteration per statement may run at a time.

        By SQL's own cursor: that of the protocol leaves a prepared statement behind, on a connection which a
        pooler gives to others.
        """
        cursor = f"reading_{_NO_WORD.sub('_', statement)}"
        sql = statement_text(statement, self._schema)
        await self._execute(f"declare {cursor} no scroll cursor for {sql}", *arguments)
        try:
            while found := await self._some(cursor):
                for row in found:
                    yield row
        except GeneratorExit:
            await self._execute(f"close {cursor}")
            raise
        await self._execute(f"close {cursor}")

    async def _some(self, cursor: str) -> list[Any]:
        with self._failures.translated():
            return await _rows(self._connection, f"fetch {_PREFETCH} from {cursor}", (), self._timeout)

    async def _execute(self, sql: str, *arguments: Any) -> None:
        with self._failures.translated():
            await self._connection.execute(sql, *arguments)


async def _rows(connection: Any, sql: str, arguments: tuple[Any, ...], timeout: float) -> list[Any]:
    try:
        rows: list[Any] = await connection.fetch(sql, *arguments)
        return rows
    except TimeoutError:
        raise TimeoutError(
            f"A read took longer than {timeout:g} s and was canceled. Narrow it, read in pages, or raise timeout."
        ) from None


def _session_attributes(dsn: str) -> str | None:
    """Return which servers the DSN accepts, or else the variable that libpq and asyncpg know."""
    try:
        named = parse_qs(urlsplit(dsn).query).get("target_session_attrs", [])
    except ValueError:  # the next connection attempt reports the problem
        return None
    return named[-1] if named else os.environ.get("PGTARGETSESSIONATTRS")


async def _no_reset(_: Any) -> None:
    # Reading leaves nothing behind in a session, so the round trip that would reset it is saved. A tenant is named for
    # a transaction only: behind a pooler, the next transaction of this server connection may be another reader's.
    return None


def _naming(tenant: str) -> str:
    """Return a statement that names the tenant for its transaction, whatever characters the name has.

    Without parameters, so that it takes one round trip and prepares nothing.
    """
    return (
        "select set_config('waypost_reader.tenant', "
        f"convert_from(decode('{tenant.encode().hex()}', 'hex'), 'UTF8'), true)"
    )


def statement_text(name: str, schema: str) -> str:
    """Return a reader's statement, that of another folder of the library, as in ``adapters/runs``, or of a package."""
    folder, _, statement = name.rpartition("/")
    package = folder if "." in folder else f"waypost.{folder or 'reader'}"
    return load_statement(package, statement, schema)
