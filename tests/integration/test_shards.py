"""Workers over two Postgres servers: each partition in its own, one away and the others going on."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.test_worker_process import Worker, publish
from tests.integration.watched import Watched, ok
from tests.oracle.books import topic_ends
from tests.support.deployment import Deployment, deployment
from tests.support.recovery import published
from tests.support.sharded import noted, own_server, rows

from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.migrate import migrate_dsn

PARTITIONS = 3


@pytest.fixture
async def here(servers: Servers, sharded: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, sharded, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
async def fragile(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[tuple[Deployment, EmbeddedPostgres]]:
    """A deployment whose second shard is on a server that may be killed."""
    second = own_server(tmp_path / "postgres")
    try:
        await migrate_dsn(second.dsn)
        await noted([database, second.dsn])
        dsns = f"{database} {second.dsn}"
        async with deployment(servers.endpoints, dsns, topic_prefix, PARTITIONS) as made:
            yield made, second
    finally:
        second.stop()


async def test_workers_keep_each_partition_in_its_own_database(here: Deployment, tmp_path: Path) -> None:
    workers = [await Worker(here, tmp_path / name).start() for name in ("one.log", "two.log")]
    sent = await published(here, seed=1, count=600)
    await here.answered(sent)
    await here.balanced()
    held = [await rows(dsn, "select partition from waypost.partitions") for dsn in here.dsn.split()]
    assert [{row[0] for row in found} for found in held] == [{0, 2}, {1}]
    for worker in workers:
        assert await worker.end(signal.SIGTERM) == 0


async def test_while_one_shard_is_down_the_others_continue_and_it_catches_up(
    fragile: tuple[Deployment, EmbeddedPostgres], tmp_path: Path
) -> None:
    here, second = fragile
    worker = Watched(here, tmp_path / "log")
    await worker.start()
    await worker.answers("/readyz", ok)
    await publish(here, 40)
    await here.answered(40)
    await asyncio.to_thread(second.kill)
    await publish(here, 80, first=40)

    async def others_applied() -> bool:
        ends = await topic_ends(here.endpoints, here.topics.commands)
        positions = await rows(here.dsn.split()[0], "select partition, next_offset from waypost.partitions")
        return {row[0]: row[1] for row in positions} == {0: ends[0], 2: ends[2]}

    await here.until(others_applied)
    body = json.loads(await worker.answers("/readyz", lambda status, text: "shard 1" in text))
    assert body["postgres"].startswith("UnavailableError: shard 1 of 2: ")
    assert (await worker.get("/livez"))[0] == 200
    await asyncio.to_thread(second.restart)
    await here.answered(120)
    await here.balanced()
    await worker.answers("/readyz", ok)
    for shard in ("0", "1"):
        await worker.shows(lambda found, of=shard: found.get(("waypost_postgres_pool_limit", of)) == 8)  # type: ignore[misc]
        assert (await worker.metrics())["waypost_postgres_seconds_count", "commit", shard] >= 1
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_worker_starts_without_a_shard_that_is_down(
    fragile: tuple[Deployment, EmbeddedPostgres], tmp_path: Path
) -> None:
    here, second = fragile
    await asyncio.to_thread(second.kill)
    worker = await Worker(here, tmp_path / "log").start()
    await publish(here, 60)
    await here.until(lambda: worker.says("partition_acquired") == 2)
    assert worker.says("postgres_unavailable") > 0
    await asyncio.to_thread(second.restart)
    await here.answered(60)
    await here.balanced()
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_drain_does_not_wait_for_a_shard_that_is_down(
    fragile: tuple[Deployment, EmbeddedPostgres], tmp_path: Path
) -> None:
    here, second = fragile
    worker = await Worker(here, tmp_path / "log").start()
    await here.until(lambda: worker.says("partition_acquired") == PARTITIONS)
    await asyncio.to_thread(second.kill)
    await publish(here, 30)
    await here.until(lambda: worker.says("term_ended") > 0)
    assert await worker.end(signal.SIGTERM) == 0


async def test_a_shard_that_comes_back_as_an_empty_database_is_refused_until_a_restart(
    here: Deployment, tmp_path: Path
) -> None:
    second = here.dsn.split()[1]
    await rows(second, "drop schema waypost cascade")
    await migrate_dsn(second)
    owner = here.own(1)
    await here.until(lambda: bool(owner.told.errors(RefusedError)))
    assert "no record of being shard 1 of 2" in str(owner.told.errors(RefusedError)[0])
    assert not await rows(second, "select from waypost.partitions")
    await owner.crash()
    # A start records it anew, and all is read from the log again.
    worker = await Worker(here, tmp_path / "log").start()
    await publish(here, 30)
    await here.answered(30)
    await here.balanced()
    assert await worker.end(signal.SIGTERM) == 0
