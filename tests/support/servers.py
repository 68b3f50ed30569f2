"""The real servers that a test run shares: one Kafka and one Postgres, started when first asked for.

Fixtures (conftest.py makes them known to all tests):

- `servers`: the running `Servers`, for the whole run. Restart or kill only servers of your own.
- `server_directory`: creates directories for server data, in memory if there is room.
- `server_path`: one such directory for this test; files whose tests start their own servers use it as `tmp_path`.
- `topic_prefix`: a prefix that no other test uses.
- `database`: DSN of a fresh database, copied from a template that `migrate_template` has prepared.
- `untouched_database`: DSN of a migrated database that all tests share which write nothing to it.

A test that uses any of them gets the mark `servers`.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from waypost_worker.devserver import DevServerError, EmbeddedKafka, Servers
from waypost_worker.devserver.startable import Startable
from waypost_worker.postgres.migrate import migrate_dsn

TEMPLATE = "waypost_template"

# The machine doesn't lose power in a test run: what fsync protects against can't happen. The write-ahead log stays
# small because it may be in memory.
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "128MB"}

# Linux's file system in memory, and how much of it must be free: each job uses about a quarter of this.
_IN_MEMORY = Path("/dev/shm")
_ROOM = 2 * 1024**3
_PREFIX = "waypost-tests-"

# For tests that kill brokers. A killed broker can't register again until its old session has expired, which takes 3 s
# in an embedded Kafka unless set otherwise.
SOON_BACK = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "100"}

_numbers = itertools.count(1)
_Server = TypeVar("_Server", bound=Startable)
ServerDirectory = Callable[[str], Path]


def migrate_template(dsn: str) -> None:
    """Prepare the database that every test's own is copied from."""
    # In a thread, for a fixture may ask for its first database while an event loop runs here.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate_dsn(dsn)).result()


def unavailable(reason: str) -> NoReturn:
    """Skip the test where a server is missing on a developer's machine; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def started(server: _Server) -> Iterator[_Server]:
    """Start a server for the block; where it can't start, what :func:`unavailable` says."""
    try:
        server.start()
    except DevServerError as error:
        unavailable(str(error))
    with server:
        yield server
        # Nobody needs its data, and an orderly shutdown closes the logs of all topics first, which takes up to 18 s.
        for kafka in (server, getattr(server, "kafka", None)):
            if isinstance(kafka, EmbeddedKafka):
                kafka.kill()


@pytest.fixture(scope="session")
def server_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerDirectory]:
    """Return a function that creates a directory for server data. All of them are removed after the run.

    Each test's database is a copy of 300 files. On ext4, which does not reuse an inode for a minute and searches for
    one that is old enough, a copy took two to six times the CPU time that it takes in memory.
    """
    if not _has_room(_IN_MEMORY):
        yield tmp_path_factory.mktemp
        return
    _remove_left_behind(_IN_MEMORY)
    with tempfile.TemporaryDirectory(
        prefix=f"{_PREFIX}{os.getpid()}-", dir=_IN_MEMORY, ignore_cleanup_errors=True
    ) as directory:
        yield lambda name: Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))


@pytest.fixture
def server_path(server_directory: ServerDirectory) -> Iterator[Path]:
    made = server_directory("own")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def _has_room(directory: Path) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return os.access(directory, os.W_OK) and found.f_bavail * found.f_frsize >= _ROOM


def _remove_left_behind(directory: Path) -> None:
    """Remove the directories of runs that were killed."""
    for left in directory.glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(server_directory: ServerDirectory) -> Iterator[Servers]:
    with started(Servers(server_directory("servers"), postgres_settings=POSTGRES_SETTINGS)) as running:
        yield running


@pytest.fixture(scope="session")
def database_template(servers: Servers) -> str:
    migrate_template(servers.postgres.create_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database(servers: Servers, database_template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    yield servers.postgres.create_database(name, template=database_template)
    servers.postgres.drop_database(name)


@pytest.fixture(scope="session")
def untouched_database(servers: Servers, database_template: str) -> str:
    return servers.postgres.create_database("test_untouched", template=database_template)


@pytest.fixture
def topic_prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def mark_users_of_servers(items: list[pytest.Item]) -> None:
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)
