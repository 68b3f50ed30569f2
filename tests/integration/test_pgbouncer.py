"""Workers and commands behind pgbouncer in transaction mode: well with one setting, and they name it without."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_worker_process import publish
from tests.integration.watched import Watched, ok
from tests.support.cli import CommandLine, Outcome
from tests.support.deployment import Deployment, deployment
from tests.support.pgbouncer import pgbouncer
from tests.support.recovery import line

from waypost_worker.devserver import Servers
from waypost_worker.postgres.shards import Shards

__all__ = ["line"]

SETTING = "WAYPOST_POSTGRES_STATEMENT_CACHE=0"


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, partitions=4) as made:
        yield made


@pytest.fixture
async def pooled(here: Deployment) -> AsyncIterator[str]:
    async with pgbouncer(here.dsn) as dsn:
        yield dsn


def events(worker: Watched) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]


async def test_a_worker_with_the_setting_does_its_work(here: Deployment, pooled: str, tmp_path: Path) -> None:
    worker = Watched(
        here, tmp_path / "log", WAYPOST_POSTGRES_DSN=pooled, WAYPOST_POSTGRES_STATEMENT_CACHE="0"
    )
    await worker.start()
    await publish(here, 200)
    await here.answered(200)
    await worker.answers("/readyz", ok)
    await here.balanced()
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_worker_without_the_setting_names_it(here: Deployment, pooled: str, tmp_path: Path) -> None:
    first = Watched(here, tmp_path / "log-1", WAYPOST_POSTGRES_DSN=pooled)
    await first.start()
    second = Watched(here, tmp_path / "log-2", WAYPOST_POSTGRES_DSN=pooled)
    await second.start()
    await publish(here, 200)

    def named() -> bool:
        reasons = [one.get("reason", "") for worker in (first, second) for one in events(worker)]
        return any(SETTING in reason for reason in reasons)

    await here.until(named)
    for worker in (first, second):
        await worker.end(signal.SIGTERM)
        assert not [one for one in events(worker) if one["event"] == "owner_failed"]


async def test_the_check_of_a_worker_without_the_setting_names_it(pooled: str) -> None:
    shards = [Shards([pooled], "waypost", size=4, timeout=5, statement_cache_size=100) for _ in range(4)]

    async def look(worker: Shards) -> None:
        await worker.open()
        for _ in range(20):
            await worker.check(0)

    found = await asyncio.gather(*map(look, shards), return_exceptions=True)
    await asyncio.gather(*(worker.close(5) for worker in shards))
    assert [one for one in found if one is not None]
    assert all(SETTING in str(one) for one in found if one is not None), found


async def test_a_command_without_the_setting_names_it(pooled: str, line: CommandLine) -> None:
    """Each process prepares statements of the same names, and the pooler's connections outlive them."""

    async def listed(with_it: CommandLine) -> Outcome:
        command = with_it.start("session", "list", "--postgres-dsn", pooled)
        return await asyncio.to_thread(command.wait)

    outcomes = [await listed(line) for _ in range(3)]
    failed = [one for one in outcomes if one.code]
    assert failed
    assert all(SETTING in one.err for one in failed), failed
    name, _, value = SETTING.partition("=")
    well = replace(line, settings={**line.settings, name: value})
    assert [(await listed(well)).code for _ in range(3)] == [0, 0, 0]
