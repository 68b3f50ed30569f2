import gc
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings
from tests.integration.adapters import adapter_world, backend
from tests.support.secure_kafka import secure_kafka
from tests.support.servers import (
    database,
    database_template,
    mark_users_of_servers,
    server_directory,
    server_path,
    servers,
    topic_prefix,
    untouched_database,
)
from tests.support.sharded import pair, second_postgres, sharded
from tests.support.trap import trap
from tests.tools.bench import cost

__all__ = [
    "adapter_world",
    "backend",
    "database",
    "database_template",
    "pair",
    "second_postgres",
    "secure_kafka",
    "server_directory",
    "server_path",
    "servers",
    "sharded",
    "topic_prefix",
    "trap",
    "untouched_database",
]

pytest_plugins = ["tests.support.skips"]

# How long an example takes says more of the machine than of the code.
settings.register_profile("waypost", deadline=None)
settings.load_profile("waypost")


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Commands that run in this process listen to signals: what follows must not find their handlers."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        if handler is not None and signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect without the garbage collector: it would look at a million imported objects again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_users_of_servers(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """CI tells whether commands became more expensive; it never fails for that."""
    if os.environ.get("CI"):
        terminalreporter.section("cost of a command in the worker")
        for line in cost.lines(cost.measure()):
            terminalreporter.write_line(line)
