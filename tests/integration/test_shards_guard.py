"""A list of databases that is not the recorded one: a clear error wherever one begins, and nothing touched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.integration.test_worker_process import Worker
from tests.support.deployment import Deployment, deployment
from tests.support.recovery import worked
from tests.support.sharded import noted, rows, state
from tests.support.timeouts import PATIENCE

from waypost import Reader
from waypost.errors import ShardMapError
from waypost.shards import ShardSlot
from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.partition.ports import RefusedError
from waypost_worker.postgres.migrate import SchemaError, migrate_dsn
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.shards import Shards
from waypost_worker.postgres.store import PostgresStore

PARTITIONS = 3


@pytest.fixture
async def here(servers: Servers, sharded: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    """A set of two that workers have used."""
    async with deployment(servers.endpoints, sharded, topic_prefix, PARTITIONS) as made:
        await worked(made, count=60)
        yield made


def shards(*dsns: str, migrate: bool = False) -> Shards:
    """What a worker opens."""
    return Shards(dsns, "waypost", size=2, timeout=5, statement_cache_size=100, migrate=migrate)


async def refused(*dsns: str, migrate: bool = False) -> str:
    """What a worker's start says; no pool stays open."""
    opened = shards(*dsns, migrate=migrate)
    with pytest.raises(SchemaError) as caught:
        await opened.open()
    await opened.close(5)
    return str(caught.value)


async def test_a_changed_map_is_refused_and_touches_nothing(
    here: Deployment, second_postgres: EmbeddedPostgres
) -> None:
    first, second = here.dsn.split()
    empty = second_postgres.create_database("third")
    try:
        before = await state([first, second, empty])
        for dsns, said in (
            ((second, first), "the list is in a different order"),
            ((first, first), "the list is in a different order, or names one database twice"),
            ((first, second, empty), "with another number of databases"),
            ((first,), "the only database of a deployment was recorded as shard 0 of 2"),
            ((second,), "the only database of a deployment was recorded as shard 1 of 2"),
        ):
            assert said in await refused(*dsns, migrate=True)
        assert await state([first, second, empty]) == before
    finally:
        second_postgres.drop_database("third")


async def test_a_database_that_held_all_is_not_a_shard(
    servers: Servers, pair: list[str], topic_prefix: str
) -> None:
    async with deployment(servers.endpoints, pair[0], topic_prefix, PARTITIONS) as alone:
        await worked(alone, count=60)
    before = await state(pair)
    assert "shard 0 of 2 was recorded as the only database" in await refused(*pair, migrate=True)
    assert await state(pair) == before


async def test_a_shard_of_another_set_is_refused(
    here: Deployment, second_postgres: EmbeddedPostgres, servers: Servers
) -> None:
    other = [servers.postgres.create_database("other_0"), second_postgres.create_database("other_1")]
    try:
        for dsn in other:
            await migrate_dsn(dsn)
        await noted(other)
        mixed = (here.dsn.split()[0], other[1])
        assert "belongs to another set" in await refused(*mixed)
        with pytest.raises(ShardMapError, match="another set"):
            async with Reader(mixed) as reader:
                await reader.sessions()
    finally:
        servers.postgres.drop_database("other_0")
        second_postgres.drop_database("other_1")


async def test_new_databases_that_are_one_are_found_whatever_their_names(
    servers: Servers, second_postgres: EmbeddedPostgres
) -> None:
    dsn = servers.postgres.create_database("once")
    try:
        again = dsn.replace("127.0.0.1", "localhost")
        assert again != dsn
        assert "shards 0 and 1 of 2 are the same database" in await refused(dsn, again, migrate=True)
        assert await state([dsn]) == [{}]
    finally:
        servers.postgres.drop_database("once")


async def test_a_new_set_is_recorded_only_when_all_of_it_answers(pair: list[str]) -> None:
    away = shards(pair[0], "postgresql://127.0.0.1:1/x")
    with pytest.raises(ConnectionError):
        await away.open()
    assert "recorded once all its databases answer" in str(away.problems[0])
    assert not (await state(pair))[0]["shard"]
    both = shards(*pair)
    await both.open()
    try:
        (one,), (two,) = [found["shard"] for found in await state(pair)]
        assert one.split(",")[1:3] == ["0", "2"]
        assert two.split(",")[1:3] == ["1", "2"]
        assert one.split(",")[3] == two.split(",")[3] == str(both.place_of(0).set_id)
    finally:
        await both.close(5)
    again = shards(*pair)
    await again.open()
    assert again.place_of(1) == both.place_of(1)
    await again.close(5)


async def test_workers_that_begin_together_record_one_set(pair: list[str]) -> None:
    several = [shards(*pair) for _ in range(6)]
    await asyncio.gather(*(each.open() for each in several))
    assert len({each.place_of(0).set_id for each in several}) == 1
    await asyncio.gather(*(each.close(5) for each in several))


async def test_an_owner_refuses_a_database_that_is_another_shard(here: Deployment) -> None:
    first, second = here.dsn.split()
    before = await state([first, second])
    for dsn, place, said in (
        (first, ShardSlot(1, 2), "the list is in a different order"),
        (second, ShardSlot(0, 2), "the list is in a different order"),
        (first, ShardSlot(0, 3), "with another number of databases"),
        (first, ShardSlot(0, 1), "the only database of a deployment was recorded as shard 0 of 2"),
        (first, ShardSlot(0, 2, uuid4()), "another set"),
    ):
        pool = await open_pool(dsn, size=1)
        with pytest.raises(RefusedError, match=said):
            await PostgresStore(pool, place.shard, place=place).acquire(PARTITIONS)
        await pool.close()
    assert await state([first, second]) == before


async def test_more_databases_than_partitions_are_refused(sharded: str) -> None:
    pool = await open_pool(sharded.split()[0], size=1)
    with pytest.raises(RefusedError, match="2 databases for 1 partitions"):
        await PostgresStore(pool, 0, place=ShardSlot(0, 2)).acquire(1)
    await pool.close()
    assert not await rows(sharded.split()[0], "select from waypost.partitions")


async def test_a_worker_process_says_it_in_one_line_and_ends(here: Deployment, tmp_path: Path) -> None:
    first, second = here.dsn.split()
    worker = await Worker(here, tmp_path / "log", WAYPOST_POSTGRES_DSN=f"{second}\n{first}").start()
    assert worker.process is not None
    assert await asyncio.wait_for(worker.process.wait(), PATIENCE) == 1
    said = worker.log.read_text()
    assert "the list is in a different order" in said.splitlines()[-1]
    assert "Traceback" not in said


async def test_a_reader_refuses_them_too(here: Deployment) -> None:
    first, second = here.dsn.split()
    session = here.sessions(1)[0]
    for dsns, said in (
        ([second, first], "a different order"),
        ([first], "the only database of a deployment was recorded as shard 0 of 2"),
        ([first, second, second], "another number"),
    ):
        async with Reader(dsns) as reader:
            with pytest.raises(ShardMapError, match=said):
                await reader.session(session).get_latest()
            with pytest.raises(ShardMapError, match=said):
                await reader.sessions()


async def test_a_reader_waits_for_no_set_that_was_never_recorded(pair: list[str]) -> None:
    async with Reader(pair) as reader:
        with pytest.raises(ShardMapError, match="no record of its place: start a worker"):
            await reader.sessions()
    await noted(pair)
    async with Reader(pair) as reader:
        assert await reader.sessions() == []
        assert await reader.session("s").get_latest() is None
