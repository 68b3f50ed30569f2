"""The reader's connections: few, bounded in time, replaced when lost, and content with a pooler in between."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.integration.reading import varied
from tests.support.deployment import Deployment, deployment
from tests.support.pgbouncer import pgbouncer
from tests.support.servers import POSTGRES_SETTINGS, ServerDirectory, migrate_template, started

from waypost import AccessDeniedError, DatabaseUnavailableError, Reader, ReaderClosedError, ReaderError
from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.devserver.ports import Port


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        made.own()
        yield made


@pytest.fixture
async def reader(world: Deployment) -> AsyncIterator[Reader]:
    async with Reader(world.dsn) as opened:
        yield opened


async def test_a_role_that_may_only_read_is_enough(world: Deployment) -> None:
    twin = await varied(world)
    owner = await asyncpg.connect(world.dsn)
    role = f"reader_{world.topics.prefix.replace('-', '_')}"
    await owner.execute(
        f"create role {role} login password 'secret'; grant usage on schema waypost to {role}; "
        f"grant select on all tables in schema waypost to {role}"
    )
    address = urlsplit(world.dsn)
    mine = address._replace(netloc=f"{role}:secret@{address.hostname}:{address.port}").geturl()
    try:
        async with Reader(mine) as reader:
            session = await twin.applied(reader)
            assert await session.export() == twin.manager.export()
            assert await session.get_summary() == twin.manager.get_summary()
            assert [each.session_id for each in await reader.sessions()] == ["run-1"]
    finally:
        await owner.execute(f"drop owned by {role}; drop role {role}")
        await owner.close()


async def test_a_closed_reader_stays_closed(world: Deployment) -> None:
    async with Reader(world.dsn) as reader:
        session = reader.session("run-1")
        assert await session.count() == 0
    for read in (session.count(), reader.sessions(), reader.wait_for((0, 0), 5)):
        with pytest.raises(ReaderClosedError, match=r"Create another one with waypost.Reader\(dsn\)"):
            await read
    with pytest.raises(ReaderClosedError):
        async with reader.snapshot():
            pass
    left = (
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = ''"
    )
    assert await world.pool.fetchval(f"{left} and pid <> pg_backend_pid()") == 0


async def test_a_refused_connection_names_the_server_and_no_secret(world: Deployment) -> None:
    address = urlsplit(world.dsn)
    server = f"Postgres at {address.hostname}:{address.port}"
    wrong = address._replace(netloc=f"nobody:hidden@{address.hostname}:{address.port}")
    for dsn, kind in (
        (wrong.geturl(), AccessDeniedError),
        (address._replace(path="/nowhere").geturl(), ReaderError),
    ):
        async with Reader(dsn) as reader:
            with pytest.raises(kind) as refused:
                await reader.sessions()
        assert str(refused.value).startswith(f"{server}{urlsplit(dsn).path} ")
        assert "hidden" not in str(refused.value)
    free = Port()
    try:
        gone = address._replace(netloc=f"nobody:hidden@127.0.0.1:{free.number}").geturl()
        async with Reader(gone) as reader:
            with pytest.raises(DatabaseUnavailableError, match=f"at 127.0.0.1:{free.number}/") as away:
                await reader.sessions()
    finally:
        free.release()
    assert "can't be reached: Connection refused. Check the DSN" in str(away.value)
    assert "hidden" not in str(away.value)


TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where datname = current_database() and pid <> pg_backend_pid() and application_name = ''"
)


async def test_lost_connections_are_replaced(world: Deployment, reader: Reader) -> None:
    session = await (await varied(world)).applied(reader)
    expected = await session.get_all()
    killer = await asyncpg.connect(world.dsn)
    try:
        for _ in range(3):
            await asyncio.gather(*(session.get_all() for _ in range(4)))
            await killer.execute(TERMINATE)
            assert await session.get_all() == expected
            await asyncio.gather(*(session.get_all() for _ in range(4)))
            await killer.execute(TERMINATE)
            assert (await session.get_summary())["total_count"] == len(expected)
    finally:
        await killer.close()


async def test_a_pool_limits_connections(world: Deployment) -> None:
    twin = await varied(world)
    async with Reader(world.dsn, pool_size=2) as reader:
        session = await twin.applied(reader)
        await asyncio.gather(*(session.get_all() for _ in range(20)))
        pool = await reader._shards.pools[0].open()
        assert pool.get_size() <= 2


async def test_it_works_without_prepared_statements_as_behind_pgbouncer(world: Deployment) -> None:
    twin = await varied(world)
    async with Reader(world.dsn, statement_cache_size=0) as reader:
        session = await twin.applied(reader)
        assert await session.export() == twin.manager.export()
        assert b"".join([piece async for piece in session.export_stream()]).decode() == twin.manager.export()
        assert await session.get_summary() == twin.manager.get_summary()


async def test_a_statement_takes_no_longer_than_it_may(world: Deployment) -> None:
    blocker = await asyncpg.connect(world.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("lock table waypost.checkpoints in access exclusive mode")
    try:
        async with Reader(world.dsn, timeout=1) as reader:
            with pytest.raises(TimeoutError, match=r"took longer than 1 s and was canceled"):
                await reader.session("s").get_all()
    finally:
        await transaction.rollback()
        await blocker.close()


WITHOUT_ASYNCPG = """
import asyncio, sys
sys.modules["asyncpg"] = None
from waypost import Reader, ReaderClosedError
try:
    asyncio.run(Reader("postgresql://x").sessions())
except ImportError as error:
    print(error)
"""


def test_without_asyncpg_the_error_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ASYNCPG], check=True, capture_output=True, text=True, timeout=60
    )
    assert "waypost[reader]" in done.stdout


def test_a_schema_name_must_be_plain() -> None:
    with pytest.raises(ValueError, match="schema name"):
        Reader("postgresql://x", schema='w"; drop')


async def test_waiting_for_a_connection_has_an_end_and_says_why(world: Deployment) -> None:
    async with Reader(world.dsn, pool_size=1, timeout=1) as reader, reader.snapshot():
        with pytest.raises(TimeoutError, match=r"all 1 are in use.*Raise pool_size"):
            await reader.session("s").count()


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="pool_size"):
        Reader("postgresql://x", pool_size=0)


# A server of our own, to be restarted.


@pytest.fixture(scope="module")
def own(server_directory: ServerDirectory) -> Iterator[EmbeddedPostgres]:
    with started(EmbeddedPostgres(server_directory("postgres"), settings=POSTGRES_SETTINGS)) as made:
        migrate_template(made.dsn)
        yield made


@pytest.mark.servers
@pytest.mark.parametrize("immediate", [False, True])
async def test_reads_wait_for_a_server_that_restarts(own: EmbeddedPostgres, immediate: bool) -> None:
    async with Reader(own.dsn, reconnect=60) as reader:
        await asyncio.gather(*(reader.sessions() for _ in range(4)))
        restarting = asyncio.create_task(asyncio.to_thread(own.restart, immediate=immediate))
        reads = 0
        while not restarting.done():
            assert await reader.sessions() == []
            reads += 1
        await restarting
        assert await reader.sessions() == []
        assert reads > 0


@pytest.mark.servers
async def test_a_server_that_is_gone_is_an_error_after_a_while_and_immediately_if_never_reached(
    own: EmbeddedPostgres,
) -> None:
    async with Reader(own.dsn, reconnect=0.3) as reader, Reader(own.dsn, reconnect=3600) as stranger:
        assert await reader.sessions() == []
        own.kill()
        with pytest.raises(DatabaseUnavailableError, match=r"It was tried again for 0\.3 s"):
            await reader.sessions()
        with pytest.raises(DatabaseUnavailableError, match="Connection refused"):
            await stranger.sessions()
        own.restart()
        assert await reader.sessions() == []


# Behind a pooler.


@pytest.fixture
async def pooled(world: Deployment) -> AsyncIterator[str]:
    async with pgbouncer(world.dsn) as dsn:
        yield dsn


async def test_every_read_works_behind_pgbouncer_in_transaction_mode(world: Deployment, pooled: str) -> None:
    twin = await varied(world)
    async with Reader(pooled, statement_cache_size=0, pool_size=8) as reader:
        session = await twin.applied(reader)

        async def everything() -> None:
            assert await session.export() == twin.manager.export()
            assert b"".join([p async for p in session.export_stream()]).decode() == twin.manager.export()
            assert await session.get_summary() == twin.manager.get_summary()
            assert [each.session_id for each in await reader.sessions()] == ["run-1"]
            assert len((await reader.recent_sessions()).sessions) == 1

        # More clients than server connections: each transaction may get another one.
        await asyncio.gather(*(everything() for _ in range(20)))


async def test_an_error_of_a_statement_cache_behind_pgbouncer_says_what_to_change(
    world: Deployment, pooled: str
) -> None:
    async def read(reader: Reader) -> None:
        await reader.session("s").get_all()
        await reader.sessions()

    async with Reader(pooled, pool_size=8) as reader:
        outcomes = await asyncio.gather(*(read(reader) for _ in range(100)), return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    assert errors
    assert all(isinstance(error, ReaderError) for error in errors)
    assert any("statement_cache_size=0" in str(error) for error in errors)
