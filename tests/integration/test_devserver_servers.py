"""Both servers together: they end with whoever started them, and their state can be started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from tests.support.processes import descendants, program_of, wait_until_gone
from tests.support.timeouts import PATIENCE

from waypost_worker.devserver import DevServerError, Endpoints, Servers

# The jars come first: a test must not measure a download.
pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("servers")]

SCRIPT = """
import signal, sys
from pathlib import Path
from waypost_worker.devserver import Servers
with Servers(Path(sys.argv[1])):
    print("up", flush=True)
    signal.pause()
"""


@pytest.fixture
def tmp_path(server_path: Path) -> Path:
    """A directory for server data: most tests here start their own servers."""
    return server_path


def start_script(state_dir: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A script that runs both servers, in a process group of its own, and all its descendants."""
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(state_dir)],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "up\n"
    pids = descendants(script.pid)
    programs = [program_of(pid) for pid in pids]
    assert programs.count("java") == 1
    assert programs.count("postgres") > 1
    return script, pids


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_killed_owner_leaves_no_process_and_its_state_can_be_started_again(tmp_path: Path) -> None:
    script, pids = start_script(tmp_path)
    endpoints = Endpoints.read(tmp_path)
    assert endpoints is not None
    await execute(endpoints.postgres_dsn, "CREATE TABLE kept ()")
    script.kill()
    script.wait()
    # At once: the old servers are still shutting down.
    async with Servers(tmp_path) as again:
        assert wait_until_gone(pids, 0) == []
        await execute(again.postgres.dsn, "SELECT * FROM kept")


def test_a_killed_owner_leaves_no_process_even_when_nobody_starts_again(tmp_path: Path) -> None:
    script, pids = start_script(tmp_path)
    script.kill()
    script.wait()
    assert wait_until_gone(pids, PATIENCE) == []


def test_ctrl_c_stops_everything_and_withdraws_the_endpoints(tmp_path: Path) -> None:
    script, pids = start_script(tmp_path)
    os.killpg(script.pid, signal.SIGINT)
    script.wait()
    assert wait_until_gone(pids, 0) == []
    assert Endpoints.read(tmp_path) is None


def test_the_endpoints_are_published_while_the_servers_run(tmp_path: Path) -> None:
    with Servers(tmp_path) as running:
        path = tmp_path / "endpoints.json"
        assert json.loads(path.read_text()) == {
            "bootstrap_servers": running.kafka.bootstrap_servers,
            "postgres_dsn": running.postgres.dsn,
        }
        assert path.stat().st_mode & 0o777 == 0o600, "it holds a password"
        assert Endpoints.read(tmp_path) == running.endpoints
    assert not path.exists()


def test_a_second_pair_on_the_same_directory_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    with Servers(tmp_path) as running:
        with pytest.raises(DevServerError, match=f"in use by process {os.getpid()}"):
            Servers(tmp_path).start()
        assert running.kafka.running
        assert running.postgres.running
        assert Endpoints.read(tmp_path) == running.endpoints


def test_ephemeral_servers_leave_no_files() -> None:
    with Servers() as running:
        state_dir = running.state_dir
        assert (state_dir / "endpoints.json").exists()
    assert not state_dir.exists()


def test_when_one_cannot_start_the_other_does_not_stay(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    with pytest.raises(DevServerError, match="no_such"):
        Servers(tmp_path, postgres_settings={"no_such": "1"}).start()
    assert set(descendants(os.getpid())) == before
    assert Endpoints.read(tmp_path) is None


def test_nothing_that_the_servers_write_is_open_to_other_users(tmp_path: Path) -> None:
    # The umask of most systems lets everybody read what a program creates.
    before = os.umask(0o022)
    try:
        tmp_path.chmod(0o755)
        with Servers(tmp_path) as running:
            asyncio.run(execute(running.postgres.dsn, "CREATE TABLE private ()"))
            written = [tmp_path, *tmp_path.rglob("*")]
            assert any(path.name == "00000000000000000000.log" for path in written), "Kafka wrote nothing"
            assert any(path.name == "PG_VERSION" for path in written), "Postgres wrote nothing"
            # A socket asks for the mode of its directory only.
            found = {path: path.lstat().st_mode & 0o777 for path in written if not path.is_socket()}
    finally:
        os.umask(before)
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}
