"""A Postgres primary and its standby behind one address, to be switched over: for scenarios and tests."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from tests.faults.backups import standby_of
from tests.faults.proxy import Proxy
from tests.support.servers import POSTGRES_SETTINGS, ServerDirectory, migrate_template, started

from waypost_worker.devserver import EmbeddedPostgres

DATABASE: Final = "switched"
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


class Pair:
    """The servers, and the address that leads to one of them."""

    def __init__(self, primary: EmbeddedPostgres, standby: EmbeddedPostgres, address: Proxy) -> None:
        self.primary = primary
        self.standby = standby
        self.address = address
        self.dsn = primary.dsn_of(DATABASE).replace(f":{primary.port}/", f":{address.port}/")

    async def make_read_only(self) -> None:
        """Let the primary refuse writes, on connections that are open as well."""
        await rows(self.primary, "alter system set default_transaction_read_only = on")
        await rows(self.primary, "select pg_reload_conf()")

    async def caught_up(self, until: Until) -> None:
        """Wait until the standby has everything that the primary has now."""
        (row,) = await rows(self.primary, "select pg_current_wal_lsn()::text as lsn")
        question = f"select pg_last_wal_replay_lsn() >= '{row['lsn']}'::pg_lsn as there"

        async def there() -> bool:
            return bool((await rows(self.standby, question))[0]["there"])

        await until(there)

    async def promote(self) -> None:
        """Make the standby the primary. New connections to the address lead there; others stay where they are."""
        await rows(self.standby, "select pg_promote()")
        self.address.target = self.standby.port


async def rows(postgres: EmbeddedPostgres, statement: str) -> list[Any]:
    """Run a statement on the server itself, not through the address."""
    connection: Any = await asyncpg.connect(postgres.dsn_of(DATABASE))
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@asynccontextmanager
async def postgres_pair(server_directory: ServerDirectory) -> AsyncIterator[Pair]:
    """A primary with a migrated database, a streaming standby, and an address that leads to the primary."""
    with started(EmbeddedPostgres(server_directory("primary"), settings=POSTGRES_SETTINGS)) as primary:
        migrate_template(primary.create_database(DATABASE))
        with started(await asyncio.to_thread(standby_of, primary, server_directory("standby"))) as standby:
            async with Proxy(primary.port) as address:
                yield Pair(primary, standby, address)
