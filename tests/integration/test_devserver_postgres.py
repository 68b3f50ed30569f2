"""The embedded Postgres: a real server that can be killed, frozen and restarted, by root and by others."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from tests.support.processes import freeze

from waypost_worker.devserver import DevServerError, EmbeddedPostgres
from waypost_worker.devserver.postgres_programs import give, unprivileged_user
from waypost_worker.devserver.process import SupervisedProcess

pytestmark = pytest.mark.servers


@pytest.fixture
def tmp_path(server_path: Path) -> Path:
    """A directory for server data: most tests here start their own servers."""
    return server_path


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(tmp_path / "state") as running:
        yield running


async def value_of(dsn: str, query: str, **options: object) -> object:
    connection = await asyncpg.connect(dsn, **options)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_committed_data_and_the_dsn_survive_every_kind_of_restart(postgres: EmbeddedPostgres) -> None:
    dsn = postgres.dsn
    await execute(dsn, "CREATE TABLE kept (n int)")
    for number, go_down in enumerate([lambda: None, postgres.kill, postgres.restart]):
        await execute(dsn, f"INSERT INTO kept VALUES ({number})")
        go_down()
        postgres.restart(immediate=True)
    assert postgres.dsn == dsn
    assert await value_of(dsn, "SELECT array_agg(n ORDER BY n) FROM kept") == [0, 1, 2]


async def test_a_kill_ends_every_connection_and_every_process(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    postgres.kill()
    assert not postgres.running
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
        await connection.fetchval("SELECT 1")


async def test_a_suspended_server_answers_no_open_connection_until_resumed(
    postgres: EmbeddedPostgres,
) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        freeze(postgres)
        answer = asyncio.create_task(connection.fetchval("SELECT 1"))
        done, _ = await asyncio.wait([answer], timeout=0.3)
        assert not done
        postgres.resume()
        assert await answer == 1
    finally:
        await connection.close()


async def test_a_suspended_server_can_be_stopped(postgres: EmbeddedPostgres) -> None:
    freeze(postgres)
    postgres.stop()
    assert not postgres.running


async def test_it_can_be_stopped_and_started_again_with_its_data(postgres: EmbeddedPostgres) -> None:
    await execute(postgres.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    postgres.stop()
    postgres.start()
    assert await value_of(postgres.dsn, "SELECT n FROM kept") == 7


async def test_a_pid_file_left_by_a_dead_server_does_not_stop_the_next(postgres: EmbeddedPostgres) -> None:
    pid_file = postgres.data_directory / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    postgres.stop()
    # A living process of the same user has that number today.
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    postgres.start()
    assert await value_of(postgres.dsn, "SELECT 1") == 1


async def test_a_database_is_copied_from_a_template_and_dropped_while_in_use(
    postgres: EmbeddedPostgres,
) -> None:
    await execute(postgres.create_database("template"), "CREATE TABLE made AS SELECT 5 AS n")
    dsn = postgres.create_database('odd "name"', template="template")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT n FROM made") == 5
    postgres.drop_database('odd "name"')
    postgres.drop_database('odd "name"')
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)
    connection.terminate()


def test_refusals_by_postgres_are_reported(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(DevServerError, match='template database "absent" does not exist'):
        postgres.create_database("copy", template="absent")


async def test_the_network_needs_the_password(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await value_of(postgres.dsn, "SELECT 1", password="guessed")
    assert (postgres.socket_directory.stat().st_mode & 0o777) == 0o700


async def test_data_is_synced_unless_asked_otherwise(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    assert await value_of(postgres.dsn, "SHOW fsync") == "on"
    with EmbeddedPostgres(tmp_path / "other", settings={"fsync": "off", "work_mem": "9MB"}) as other:
        assert await value_of(other.dsn, "SHOW fsync") == "off"
        assert await value_of(other.dsn, "SHOW work_mem") == "9MB"


async def test_a_long_path_does_not_disturb_its_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    async with EmbeddedPostgres(deep) as postgres:
        sockets = postgres.socket_directory
        assert [path.is_socket() for path in sockets.glob(".s.PGSQL.*[0-9]")] == [True]
        assert await value_of(postgres.dsn, "SELECT 1") == 1
    assert not sockets.exists()


def test_a_setting_that_postgres_refuses_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(DevServerError, match='unrecognized configuration parameter "no_such"'):
        EmbeddedPostgres(tmp_path, settings={"no_such": "1"}).start()


def test_a_directory_in_use_is_refused_and_its_owner_is_named(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(DevServerError, match=f"in use by process {os.getpid()}"):
        EmbeddedPostgres(postgres.data_directory.parent).start()
    assert postgres.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
class TestAsRoot:
    def test_the_server_runs_as_an_ordinary_user(self, postgres: EmbeddedPostgres) -> None:
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        user = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert "0" not in user

    def test_no_directory_is_opened_to_others_for_its_sake(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        with EmbeddedPostgres(closed / "state") as postgres:
            assert postgres.running
            assert (closed.stat().st_mode & 0o777) == 0o700
            assert (postgres.data_directory.stat().st_mode & 0o777) == 0o700

    def test_an_ordinary_user_can_start_it_too(self, tmp_path: Path) -> None:
        user, log, home = unprivileged_user(), tmp_path / "log", tmp_path / "home"
        home.mkdir()
        give(home, user)
        script = f"""
import os
from pathlib import Path
from waypost_worker.devserver import EmbeddedPostgres
with EmbeddedPostgres(Path({str(home)!r}) / "state") as postgres:
    print(os.geteuid() == Path(f"/proc/{{postgres.pid}}").stat().st_uid != 0)
"""
        ordinary = SupervisedProcess([sys.executable, "-c", script], log=log, stop=(), user=user)
        ordinary.wait(60)
        assert log.read_text() == "True\n"
