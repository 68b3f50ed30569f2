"""What the tests of replay, verify and the drills share: a deployment, the command line, and statements on the side."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.support import workload
from tests.support.cli import CommandLine, Outcome
from tests.support.deployment import Deployment, deployment

from waypost_worker.devserver import Servers

PARTITIONS = 3


@pytest.fixture
async def live(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def line(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": database,
            "WAYPOST_TOPIC_PREFIX": topic_prefix,
            "WAYPOST_REQUEST_TIMEOUT": "5",
        },
    )


async def published(live: Deployment, seed: int, count: int, topic: str | None = None) -> int:
    """A log with everything in it."""
    wanted = workload.commands(seed, count, PARTITIONS, erasing=True)
    return await workload.publish(live.producer, topic or live.topics.commands, wanted)


async def worked(live: Deployment, seed: int = 1, count: int = 1500, before: int = 0) -> None:
    """So many commands with everything in them, applied and answered by owners; ``before`` were answered already."""
    sent = await published(live, seed, count)
    owners = [live.own(partition) for partition in range(PARTITIONS)]
    await live.answered(before + sent)
    for owner in owners:
        await owner.stop()


async def run(line: CommandLine, *arguments: str) -> Outcome:
    """Run a command without holding up this loop, and with it the owners."""
    return await asyncio.to_thread(line.run, *arguments)


async def execute(dsn: str, *statements: str) -> None:
    """SQL behind Waypost's back."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            assert await connection.execute(statement) != "UPDATE 0", statement
    finally:
        await connection.close()
