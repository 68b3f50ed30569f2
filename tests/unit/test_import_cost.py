"""What ``import waypost`` costs an agent, and that every name it offers is there."""

import subprocess
import sys

import pytest

import waypost

HEAVY = {"aiokafka", "asyncpg", "pydantic", "orjson", "simdjson", "asyncio", "sqlite3"}

LOADED = """
import sys
before = set(sys.modules)
import waypost
{}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""

COST = """
import time
began = time.process_time()
import waypost
print(time.process_time() - began)
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_the_package_loads_nothing_that_was_not_asked_for() -> None:
    assert not set(run(LOADED.format("")).split()) & HEAVY


def test_an_error_class_does_not_load_the_kafka_client() -> None:
    assert not set(run(LOADED.format("waypost.BufferFullError")).split()) & HEAVY


@pytest.mark.parametrize("name", ["Publisher", "SyncPublisher", "Subscriber"])
def test_the_kafka_client_is_loaded_only_when_something_starts(name: str) -> None:
    loaded = set(run(LOADED.format(f"waypost.{name}")).split())
    assert loaded & HEAVY == {"asyncio", "orjson"}


STARTED = """
import asyncio, sys
import waypost
async def main():
    async with waypost.Publisher("127.0.0.1:1") as publisher:
        publisher.create("s", "n", {})
        await publisher.close(0)
asyncio.run(main())
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_publishing_loads_the_kafka_client_and_nothing_else() -> None:
    assert set(run(STARTED).split()) & HEAVY == {"aiokafka", "asyncio", "orjson"}


@pytest.mark.parametrize("name", ["CheckpointManager", "Reader"])
def test_what_needs_no_kafka_does_not_load_it(name: str) -> None:
    assert not set(run(LOADED.format(f"waypost.{name}")).split()) & {"aiokafka", "asyncpg", "pydantic"}


def test_importing_the_package_takes_far_less_than_100_ms() -> None:
    # Processor time of the import alone; it is about 5 ms.
    assert float(run(COST)) < 0.1


@pytest.mark.parametrize("name", waypost.__all__)
def test_every_name_that_is_offered_exists(name: str) -> None:
    assert getattr(waypost, name).__name__ == name


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Publischer'"):
        _ = waypost.Publischer


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert waypost.__version__ == version("waypost")


def test_the_console_starts_without_what_only_logs_of_workers_need() -> None:
    loaded = (
        "import sys, waypost_worker.console.serve; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not set(run(loaded).split()) & {
        "structlog",
        "rich",
        "cyclopts",
        "prometheus_client",
        "opentelemetry",
    }
