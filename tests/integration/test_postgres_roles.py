"""The roles that ``waypost migrate --roles`` prints: each gets its work done, and may do nothing more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment, deployment

from waypost import Reader, ReaderTimeoutError
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.postgres.pool import check_schema, open_pool

pytestmark = pytest.mark.servers

ROLES = ("migrator", "worker", "reader")
LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout")
FORBIDDEN = [
    ("reader", "insert into waypost.rejected_commands default values"),
    ("reader", "delete from waypost.checkpoints"),
    ("reader", "update waypost.partitions set epoch = 9"),
    ("reader", "create table waypost.mine ()"),
    ("worker", "insert into waypost.migrations values (99, 'x', 'y')"),
    ("worker", "delete from waypost.migrations"),
    ("worker", "truncate waypost.checkpoints"),
    ("worker", "drop table waypost.checkpoints"),
    ("worker", "alter table waypost.checkpoints add column mine text"),
    ("worker", "create table waypost.mine ()"),
    ("worker", "create schema mine"),
    ("worker", "create role mine"),
    ("migrator", "create schema mine"),
    ("migrator", "create role mine"),
]


@dataclass(frozen=True)
class Guarded:
    """A database without a schema at first, and its DSN for each role."""

    admin: str
    schema: str
    directory: Path

    def dsn(self, role: str) -> str:
        parts = urlsplit(self.admin)
        return parts._replace(netloc=f"waypost_{role}:{role}@{parts.hostname}:{parts.port}").geturl()

    def migrate(self, role: str, *flags: str) -> str:
        line = CommandLine(self.directory, {"WAYPOST_POSTGRES_DSN": self.dsn(role)})
        done = line.run("migrate", "--schema", self.schema, *flags)
        assert done.code == 0, done.err
        return done.out

    async def refused(self, role: str, statement: str) -> bool:
        connection = await asyncpg.connect(self.dsn(role))
        try:
            await connection.execute(statement.replace("waypost.", f"{self.schema}."))
        except asyncpg.InsufficientPrivilegeError:
            return True
        finally:
            await connection.close()
        return False


@pytest.fixture(params=["waypost", "elsewhere"])
async def guarded(
    request: pytest.FixtureRequest, servers: Servers, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Guarded]:
    name = topic_prefix.replace("-", "_")
    made = Guarded(servers.postgres.create_database(name), request.param, tmp_path)
    administrator = await asyncpg.connect(made.admin)
    try:
        printed = await asyncio.to_thread(made.migrate, "reader", "--roles")
        await administrator.execute(printed)
        for role in ROLES:
            await administrator.execute(f"alter role waypost_{role} password '{role}'")
        await asyncio.to_thread(made.migrate, "migrator")
        await administrator.execute(printed)
        yield made
    finally:
        await administrator.close()
        servers.postgres.drop_database(name)


@pytest.mark.parametrize("guarded", ["waypost"], indirect=True)
async def test_each_role_does_its_work(guarded: Guarded, servers: Servers, topic_prefix: str) -> None:
    async with deployment(servers.endpoints, guarded.dsn("worker"), topic_prefix) as world:
        await _work(world)
        async with Reader(guarded.dsn("reader")) as reader:
            assert {one.session_id for one in await reader.sessions()} >= {"s"}
            latest = await reader.session("s").get_latest()
            assert latest is not None
            assert latest.name == "kept"


async def _work(world: Deployment) -> None:
    world.own()
    await world.create("s", "kept")
    await world.send(b"no JSON", b"s")
    await world.create("t")
    await world.send(b"{}", b"t", EventType.CLEAR.wire)
    await world.answered(4)
    await world.balanced()


async def test_a_worker_starts_with_its_role_and_checks_the_schema(guarded: Guarded) -> None:
    pool = await open_pool(guarded.dsn("worker"))
    try:
        async with pool.acquire() as connection:
            await check_schema(connection, guarded.schema)
    finally:
        await pool.close()


async def test_no_role_may_do_more(guarded: Guarded) -> None:
    allowed = [one for one in FORBIDDEN if not await guarded.refused(*one)]
    assert not allowed


async def test_objects_of_a_later_migration_are_open_to_them_immediately(guarded: Guarded) -> None:
    assert not await guarded.refused("migrator", "create table waypost.later (number integer)")
    assert not await guarded.refused("worker", "insert into waypost.later values (1)")
    assert not await guarded.refused("reader", "select * from waypost.later")
    assert await guarded.refused("reader", "insert into waypost.later values (1)")


@pytest.mark.parametrize("guarded", ["waypost"], indirect=True)
async def test_what_a_reader_forgets_ends_by_itself_and_a_limit_of_the_operator_stays(
    guarded: Guarded, servers: Servers
) -> None:
    async def limits(role: str) -> list[str]:
        connection = await asyncpg.connect(guarded.dsn(role))
        try:
            return [await connection.fetchval(f"show {name}") for name in LIMITS]
        finally:
            await connection.close()

    assert await limits("reader") == ["2min", "5min", "1h"]
    assert await limits("worker") == ["0", "0", "0"]
    administrator = await asyncpg.connect(guarded.admin)
    try:
        database = await administrator.fetchval("select current_database()")
        await administrator.execute(
            f"alter role waypost_reader in database {database} set statement_timeout = '7s'"
        )
        await administrator.execute(await asyncio.to_thread(guarded.migrate, "reader", "--roles"))
    finally:
        await administrator.close()
    assert await limits("reader") == ["7s", "5min", "1h"]
    async with Reader(guarded.dsn("reader")) as reader:
        pool = reader._shards.pools[0]
        async with pool._acquired() as connection:
            await connection.execute("set statement_timeout = '10ms'")
            with pytest.raises(ReaderTimeoutError, match="canceled a read"), pool._failures.translated():
                await connection.fetch("select pg_sleep(60)")
