"""The real servers that a test run shares: one Kafka and one Postgres, started when first asked for.

Fixtures (conftest.py makes them known to all tests):

- `servers`: the running `Servers`, for the whole run. Restart or kill only servers of your own.
- `topic_prefix`: a prefix that no other test uses.
- `database`: DSN of a fresh database, copied from a template that `migrate_template` has prepared.

A test that uses any of them gets the mark `servers`.
"""

import asyncio
import itertools
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import pytest

from waypost_worker.devserver import DevServerError, Servers
from waypost_worker.devserver.startable import Startable
from waypost_worker.postgres.migrate import migrate_dsn

TEMPLATE = "waypost_template"

# The machine doesn't lose power in a test run: what fsync protects against can't happen.
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off"}

_numbers = itertools.count(1)
_Server = TypeVar("_Server", bound=Startable)


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


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with started(Servers(postgres_settings=POSTGRES_SETTINGS)) as running:
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


@pytest.fixture
def topic_prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def mark_users_of_servers(items: list[pytest.Item]) -> None:
    for item in items:
        if "servers" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.servers)
