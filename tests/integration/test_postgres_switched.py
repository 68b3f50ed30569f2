"""Pools follow an address to another server: a worker's from errors and checks, a reader's by age and DSN."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.conformance.stores import PARTITIONS, Hand, entry, puts
from tests.faults.switch import DATABASE, Pair, postgres_pair
from tests.support.servers import ServerDirectory
from tests.support.timeouts import PATIENCE

from waypost import DatabaseUnavailableError, Reader
from waypost_worker.partition.ports import UnavailableError
from waypost_worker.postgres.migrate import ReadOnlyDatabaseError
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.shards import Shards
from waypost_worker.postgres.store import PostgresStore

pytestmark = pytest.mark.servers


@pytest.fixture
async def pair(server_directory: ServerDirectory) -> AsyncIterator[Pair]:
    async with postgres_pair(server_directory) as made:
        yield made


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            pass


async def switch_over(pair: Pair) -> None:
    await pair.make_read_only()
    await pair.caught_up(until)
    await pair.promote()


@asynccontextmanager
async def shards(dsn: str) -> AsyncIterator[Shards]:
    made = Shards([dsn], "waypost", size=4, timeout=5, statement_cache_size=100)
    try:
        yield made
    finally:
        await made.close(5)


async def test_a_store_follows_after_one_refused_write(pair: Pair) -> None:
    pool = await open_pool(pair.dsn, size=2, timeout=5)
    try:
        store = PostgresStore(pool, 0)
        hand = Hand(store, await store.acquire(PARTITIONS))
        await hand.commit(puts("s", [entry(1)]))
        await switch_over(pair)
        with pytest.raises(UnavailableError, match="read-only transaction"):
            await hand.commit(puts("s", [entry(2)]))
        again = Hand(store, await store.acquire(PARTITIONS))
        assert again.next_offset == 10
        await again.commit(puts("s", [entry(2)]))
        assert len((await store.load(["s"]))["s"]) == 2
    finally:
        pool.terminate()


async def test_a_check_finds_a_server_that_became_read_only_and_the_next_one_its_successor(
    pair: Pair,
) -> None:
    async with shards(pair.dsn) as worker:
        await worker.open()
        await worker.check(0)
        await switch_over(pair)
        with pytest.raises(ReadOnlyDatabaseError, match="default_transaction_read_only=on"):
            await worker.check(0)
        await worker.check(0)


async def test_a_standby_is_not_taken_in_until_it_is_promoted(pair: Pair) -> None:
    pair.address.target = pair.standby.port
    async with shards(pair.dsn) as worker:
        with pytest.raises(ReadOnlyDatabaseError, match="is a standby"):
            await worker.open()
        await pair.promote()
        await worker.open()
        await worker.check(0)


async def test_target_session_attrs_finds_the_primary_among_several_servers(pair: Pair) -> None:
    several = pair.standby.dsn_of(DATABASE).replace("@", "@{}", 1)
    both = several.format(f"127.0.0.1:{pair.standby.port},").replace(
        f",127.0.0.1:{pair.standby.port}/", f",127.0.0.1:{pair.primary.port}/"
    )
    async with shards(f"{both}?target_session_attrs=read-write") as worker:
        await worker.open()
        await worker.check(0)
        await pair.make_read_only()
        await pair.caught_up(until)
        with pytest.raises(ReadOnlyDatabaseError):
            await worker.check(0)
        await pair.promote()
        await worker.check(0)


async def server_of(reader: Reader) -> int:
    """The port of the server that the reader's last connection leads to."""
    await reader.sessions()
    pool: Any = await reader._shards.pools[0].open()
    found: int = await pool.fetchval("select current_setting('port')::int")
    return found


async def test_a_reader_that_asks_for_a_server_with_writes_leaves_one_without(pair: Pair) -> None:
    async with Reader(f"{pair.dsn}?target_session_attrs=read-write", pool_size=1) as reader:
        assert await server_of(reader) == pair.primary.port
        await switch_over(pair)
        await reader.sessions()  # with this answer the server reports what it is now
        assert await server_of(reader) == pair.standby.port


async def test_a_reader_that_asks_for_the_primary_says_that_there_is_none(pair: Pair) -> None:
    pair.address.target = pair.standby.port
    async with Reader(f"{pair.dsn}?target_session_attrs=primary", reconnect=0) as reader:
        with pytest.raises(DatabaseUnavailableError, match="target_session_attrs accepts"):
            await reader.sessions()


async def test_any_reader_follows_its_address_after_a_while(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Reader(pair.dsn, pool_size=1) as reader:
        assert await server_of(reader) == pair.primary.port
        await switch_over(pair)
        assert await server_of(reader) == pair.primary.port
        pool = reader._shards.pools[0]
        monkeypatch.setattr(pool, "_replace_at", asyncio.get_running_loop().time())
        assert await server_of(reader) == pair.standby.port
