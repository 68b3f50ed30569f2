"""Whatever goes wrong with Postgres, each public read raises an error of the library that says what to do."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.support.servers import POSTGRES_SETTINGS, migrate_template, started
from tests.support.timeouts import PATIENCE

from waypost import (
    AccessDeniedError,
    DatabaseUnavailableError,
    Reader,
    ReaderClosedError,
    ReaderError,
    ReaderTimeoutError,
    WaypostError,
)
from waypost.reader.barrier import Barrier
from waypost_worker.devserver.ports import Port
from waypost_worker.devserver.postgres import EmbeddedPostgres

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SECRET = "hidden"


async def _snapshot(reader: Reader) -> None:
    async with reader.snapshot():
        pass


async def _barrier(reader: Reader) -> None:
    # What it asks Postgres; what it asks Kafka has tests of its own.
    await Barrier(reader._shards, "topic", {"bootstrap_servers": "127.0.0.1:1"}, 1).applied(0, 1, PATIENCE)


async def _pieces(reader: Reader) -> None:
    async for _ in reader.session("s").export_stream():
        pass


async def _each(reader: Reader) -> None:
    async for _ in reader.session("s"):
        pass


READS: dict[str, Callable[[Reader], Awaitable[Any]]] = {
    "sessions": lambda reader: reader.sessions(),
    "recent_sessions": lambda reader: reader.recent_sessions(),
    "session_info": lambda reader: reader.session_info("s"),
    "wait_for": lambda reader: reader.wait_for((0, 0)),
    "get": lambda reader: reader.session("s").get("s:1"),
    "get_by_name": lambda reader: reader.session("s").get_by_name("n"),
    "get_latest": lambda reader: reader.session("s").get_latest(),
    "get_all": lambda reader: reader.session("s").get_all(),
    "get_since": lambda reader: reader.session("s").get_since(NOW),
    "get_between": lambda reader: reader.session("s").get_between(NOW, NOW),
    "page": lambda reader: reader.session("s").page(),
    "rollback_to": lambda reader: reader.session("s").rollback_to("s:1"),
    "get_summary": lambda reader: reader.session("s").get_summary(),
    "export": lambda reader: reader.session("s").export(),
    "count": lambda reader: reader.session("s").count(),
    "export_stream": _pieces,
    "iteration": _each,
}
#: Every public call that reaches Postgres. The last one only opens a transaction.
ALL = {**READS, "snapshot": _snapshot, "barrier": _barrier}


async def fails(reader: Reader, kind: type[WaypostError], said: str, reads: Any = ALL) -> None:
    """Each read fails with this kind of error, and nothing of asyncpg's is seen but the cause."""
    for name in reads:
        await one_fails(reader, kind, said, name)


async def one_fails(reader: Reader, kind: type[WaypostError], said: str, name: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        await ALL[name](reader)
    assert not isinstance(caught.value, asyncpg.PostgresError | asyncpg.InterfaceError), name
    assert SECRET not in str(caught.value), name


async def all_fail(reader: Reader, kind: type[WaypostError], said: str, reads: Any = ALL) -> None:
    """The same of as many reads at once as a reader has connections, for errors that take their time."""
    connections = asyncio.Semaphore(4)

    async def one(name: str) -> None:
        async with connections:
            await one_fails(reader, kind, said, name)

    async with asyncio.TaskGroup() as group:
        for name in reads:
            group.create_task(one(name))


def address(dsn: str, **changes: str) -> str:
    """The DSN with another user, host or path."""
    parts = urlsplit(dsn)
    server = f"{changes.get('host', parts.hostname)}:{changes.get('port', parts.port)}"
    user = f"{changes['user']}:{SECRET}" if "user" in changes else parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@{server}", path=changes.get("path", parts.path)).geturl()


@asynccontextmanager
async def role(dsn: str, *statements: str) -> AsyncIterator[str]:
    """A role that may do what the statements grant it, and its DSN."""
    name = f"limited_{urlsplit(dsn).path.strip('/')}"
    owner = await asyncpg.connect(dsn)
    await owner.execute(f"create role {name} login password '{SECRET}'")
    try:
        for statement in statements:
            await owner.execute(statement.format(name))
        yield address(dsn, user=name)
    finally:
        await owner.execute(f"drop owned by {name}; drop role {name}")
        await owner.close()


async def test_every_public_read_is_looked_at() -> None:
    named = {name for name in dir(Reader) if not name.startswith("_")}
    async with Reader("postgresql://127.0.0.1:1/x") as reader:
        named |= {name for name in dir(type(reader.session("s"))) if not name.startswith("_")}
    old = {"fetch", "fetch_all"}
    asks_nothing = {"close", "session", "codec"}
    assert named - old - asks_nothing == ALL.keys() - {"iteration"}


async def test_a_server_that_nobody_runs() -> None:
    free = Port()
    try:
        async with Reader(f"postgresql://u:{SECRET}@127.0.0.1:{free.number}/db") as reader:
            said = rf"^Postgres at 127\.0\.0\.1:{free.number}/db can't be reached: Connection refused\. Check the DSN"
            await fails(reader, DatabaseUnavailableError, said)
            with pytest.raises(OSError, match="Connection refused"):  # as in 0.1
                await reader.sessions()
    finally:
        free.release()


async def test_a_host_that_has_no_address() -> None:
    async with Reader(f"postgresql://u:{SECRET}@no-such-host.invalid/db") as reader:
        await fails(
            reader, DatabaseUnavailableError, r"no-such-host\.invalid/db .* host name can't be looked up"
        )


async def test_a_login_that_is_refused(database: str) -> None:
    async with Reader(address(database, user="nobody")) as reader:
        await fails(reader, AccessDeniedError, r'refused the login: password .* "nobody"\. Check user')


async def test_a_database_that_is_not_there(database: str) -> None:
    async with Reader(address(database, path="/nowhere")) as reader:
        await fails(
            reader, ReaderError, r'/nowhere does not exist: database "nowhere" .* Create the database'
        )


@pytest.mark.parametrize("schema", ["waypost", "elsewhere"])
async def test_a_database_without_the_schema(database: str, schema: str) -> None:
    owner = await asyncpg.connect(database)
    await owner.execute("drop schema waypost cascade")
    await owner.close()
    named = "Waypost schema" if schema == "waypost" else "Waypost schema 'elsewhere'"
    async with Reader(database, schema=schema) as reader:
        await fails(
            reader, ReaderError, rf"has no {named} of this version: .* Run 'waypost migrate'\.$", READS
        )


async def test_a_role_that_may_not_read(database: str) -> None:
    async with role(database, "grant usage on schema waypost to {}") as dsn, Reader(dsn) as reader:
        said = r"denied a read: permission denied for .* 'waypost migrate --roles' prints the SQL"
        await fails(reader, AccessDeniedError, said, READS)


@asynccontextmanager
async def locked(dsn: str) -> AsyncIterator[None]:
    """Every table is locked meanwhile, so that no read comes to its end."""
    blocker = await asyncpg.connect(dsn)
    try:
        async with blocker.transaction():
            await blocker.execute(
                "lock table waypost.checkpoints, waypost.sessions, waypost.partitions in access exclusive mode"
            )
            yield
    finally:
        await blocker.close()


async def test_a_read_that_takes_too_long(database: str) -> None:
    # Long enough to connect on a busy machine.
    async with Reader(database, timeout=1) as reader, locked(database):
        await all_fail(reader, ReaderTimeoutError, "took longer than 1 s and was canceled. Narrow it", READS)
        with pytest.raises(TimeoutError, match="took longer"):  # as in 0.1
            await reader.session("s").get_all()


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
async def test_a_read_that_the_server_cancels(database: str, limit: str) -> None:
    granted = (
        "grant usage on schema waypost to {}",
        "grant select on all tables in schema waypost to {}",
        f"alter role {{}} set {limit} = 200",
    )
    async with role(database, *granted) as dsn, Reader(dsn) as reader, locked(database):
        said = rf"canceled a read: .* due to \w+ timeout\. Narrow it, read in pages, or raise {limit}"
        await all_fail(reader, ReaderTimeoutError, said, READS)


async def test_connections_that_are_all_in_use(database: str) -> None:
    async with Reader(database, pool_size=1, timeout=0.2) as reader, reader.snapshot():
        await all_fail(reader, ReaderTimeoutError, r"all 1 are in use .*\. Raise pool_size")


async def test_a_snapshot_whose_connection_is_ended(database: str) -> None:
    owner = await asyncpg.connect(database)

    async def read(reader: Reader) -> None:
        async with reader.snapshot() as snapshot:
            await owner.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            await snapshot.fetch("count", "s")

    try:
        async with Reader(database) as reader:
            with pytest.raises(DatabaseUnavailableError, match="can't be reached"):
                await read(reader)
            assert await reader.sessions() == []
    finally:
        await owner.close()


async def test_what_fails_within_a_snapshot_is_the_users_own(database: str) -> None:
    async with Reader(database) as reader:
        with pytest.raises(asyncpg.UndefinedTableError, match="of mine"):
            async with reader.snapshot():
                raise asyncpg.UndefinedTableError("of mine")


async def test_a_closed_reader(database: str) -> None:
    async with Reader(database) as reader:
        await reader.sessions()
    await fails(reader, ReaderClosedError, "This reader is closed. Create another one")


def test_a_reader_on_another_event_loop(database: str) -> None:
    reader = Reader(database)
    other = asyncio.new_event_loop()
    other.run_until_complete(reader.sessions())

    async def again() -> None:
        await fails(
            reader, ReaderError, "a different event loop than before.* Create a reader for each event loop"
        )

    asyncio.run(again())
    other.run_until_complete(reader.close())
    other.close()


def test_a_reader_works_in_one_asyncio_run_after_another(database: str) -> None:
    reader = Reader(database, pool_size=2)

    async def read() -> list[Any]:
        return await asyncio.gather(*(reader.sessions() for _ in range(4)))

    connected = len(connections())
    for _ in range(3):
        assert [list(page) for page in asyncio.run(read())] == [[]] * 4
        assert len(connections()) <= connected + 2  # those of the closed loop are gone
    asyncio.run(reader.close())


def connections() -> list[str]:
    """The sockets that this process has open."""
    folder = "/proc/self/fd"
    return [name for name in os.listdir(folder) if link_of(f"{folder}/{name}").startswith("socket:")]


def link_of(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""


def test_a_reader_in_a_forked_child_says_that_its_connections_are_the_parents(database: str) -> None:
    assert _printed(FORKED, database) == "ReaderError: True\n"


def test_a_reader_that_was_only_made_before_a_fork_reads_in_the_child(database: str) -> None:
    assert (
        _printed(FORKED.replace("asyncio.run(reader.sessions())\nprocess", "process"), database) == "read\n"
    )


def _printed(program: str, database: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, database],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKED = """
import asyncio, multiprocessing, sys
from waypost import Reader, ReaderError

reader = Reader(sys.argv[1])

def child():
    try:
        asyncio.run(reader.sessions())
        print("read", flush=True)
    except ReaderError as error:
        print("ReaderError:", "before a fork" in str(error), flush=True)

asyncio.run(reader.sessions())
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
"""


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("localhost", "The DSN can't be used: invalid DSN: scheme is expected"),
        (
            f"postgresql://u:{SECRET}@h/x?sslmode=odd",
            "The DSN can't be used: `sslmode` parameter must be one of",
        ),
        (
            f"postgresql://u:{SECRET}/more@h/x",
            "a port in it is not a number from 1 to 65535. Nothing was read",
        ),
    ],
)
async def test_an_invalid_dsn_is_a_wrong_argument(dsn: str, said: str) -> None:
    async with Reader(dsn) as reader:
        for read in ALL.values():
            with pytest.raises(ValueError, match=said) as caught:
                await read(reader)
            assert not isinstance(caught.value, asyncpg.InterfaceError)
            assert SECRET not in str(caught.value)


async def test_a_position_that_no_command_can_have_is_a_wrong_argument(database: str) -> None:
    async with Reader(database) as reader:
        with pytest.raises(ValueError, match="is not the token of a result"):
            await reader.wait_for((2**40, 0))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with started(EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), settings=POSTGRES_SETTINGS)) as made:
        migrate_template(made.dsn)
        yield made


@pytest.mark.servers
async def test_a_server_that_dies_and_comes_back(own: EmbeddedPostgres) -> None:
    async with Reader(own.dsn, reconnect=0.1) as reader:
        assert await reader.sessions() == []
        own.kill()
        try:
            await fails(
                reader, DatabaseUnavailableError, r"can't be reached: .* It was tried again for 0\.1 s\."
            )
        finally:
            own.restart()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert await reader.sessions() == []
                    return
                except DatabaseUnavailableError:
                    continue
