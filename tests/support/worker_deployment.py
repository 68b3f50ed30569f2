"""Fixtures for tests of commands: a deployment on the shared servers, with a worker process.

A test module that uses them imports them by name and lists them in ``__all__``.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.support.cli import CommandLine, Started

from waypost_worker.devserver import Servers

_numbers = itertools.count(1)


def prepared(servers: Servers, dsn: str, prefix: str, directory: Path) -> CommandLine:
    line = CommandLine(
        directory,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": dsn,
            "WAYPOST_TOPIC_PREFIX": prefix,
            # In a group shared by all tests, a worker would wait until the session of the last killed one expires.
            "WAYPOST_GROUP_ID": prefix,
        },
    )
    assert line.run("topics", "create", "--partitions", "2", "--skip-zombie-test").code == 0
    return line


@pytest.fixture(scope="module")
def shared(
    servers: Servers, database_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandLine]:
    """A deployment with a worker for all tests here; each has sessions of its own."""
    name = f"test_cli_{next(_numbers)}"
    dsn = servers.postgres.create_database(name, template=database_template)
    directory = tmp_path_factory.mktemp("cli")
    line = prepared(servers, dsn, f"test-{uuid.uuid4().hex[:12]}", directory)
    worker = line.start("worker")
    try:
        worker.until("worker_ready")
        yield line
    finally:
        worker.end()
    servers.postgres.drop_database(name)


@pytest.fixture
def line(shared: CommandLine, tmp_path: Path) -> CommandLine:
    """That deployment, in a directory of the test's own."""
    return CommandLine(tmp_path, shared.settings)


@pytest.fixture
def session() -> str:
    return f"session-{next(_numbers)}"


@pytest.fixture
def own(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    """A deployment of the test's own, without a worker."""
    return prepared(servers, database, topic_prefix, tmp_path)


@pytest.fixture
def own_worker(own: CommandLine) -> Iterator[Started]:
    """A worker of that."""
    worker = own.start("worker")
    worker.until("worker_ready")
    yield worker
    worker.end()


def create(line: CommandLine, session: str, *names: str) -> None:
    lines = [json.dumps({"session": session, "name": name, "data": {"at": name}}) for name in names]
    ended = line.run("publish", "--stdin", "--wait", "--timeout", "30", stdin="\n".join(lines))
    assert ended.code == 0, ended


def commands_in(line: CommandLine) -> int:
    """How many records the command topic has."""

    async def ends() -> int:
        consumer = AIOKafkaConsumer(bootstrap_servers=line.settings["WAYPOST_BOOTSTRAP_SERVERS"])
        await consumer.start()
        try:
            topic = f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands"
            found = await consumer.end_offsets([TopicPartition(topic, number) for number in range(2)])
            return sum(found.values())
        finally:
            await consumer.stop()

    return asyncio.run(ends())
