"""The store while a server or another worker is frozen, killed or restarted: nothing waits without end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from tests.conformance.stores import PARTITIONS, Hand, entry, puts
from tests.faults.proxy import Proxy
from tests.support.processes import freeze
from tests.support.servers import POSTGRES_SETTINGS, ServerDirectory, started
from tests.support.timeouts import PATIENCE

from waypost.shards import ShardSlot
from waypost_worker.devserver import EmbeddedPostgres
from waypost_worker.partition.ports import Fence, UnavailableError
from waypost_worker.postgres.migrate import migrate_dsn
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.shards import note_places
from waypost_worker.postgres.statements import statement
from waypost_worker.postgres.store import PostgresStore

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def postgres(server_directory: ServerDirectory) -> Iterator[EmbeddedPostgres]:
    with started(EmbeddedPostgres(server_directory("postgres"), settings=POSTGRES_SETTINGS)) as made:
        yield made


@pytest.fixture
async def dsn(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    dsn = postgres.create_database("outages")
    await migrate_dsn(dsn)
    yield dsn
    postgres.drop_database("outages")


@asynccontextmanager
async def impatient(dsn: str, timeout: float = 0.5) -> AsyncIterator[Any]:
    pool = await open_pool(dsn, size=2, timeout=timeout)
    try:
        yield pool
    finally:
        pool.terminate()


def calls(store: PostgresStore, hand: Hand) -> list[Callable[[], Awaitable[Any]]]:
    """Everything that an owner asks of a store."""
    return [
        lambda: store.acquire(PARTITIONS),
        lambda: store.record_claim(hand.state.epoch, Fence(1, 1)),
        lambda: store.save_position(hand.state.epoch, 0, 1),
        lambda: store.load(["s"]),
        lambda: store.contents([("s", 1)]),
        lambda: hand.commit(puts("s", [entry(2)])),
    ]


async def until_available(store: PostgresStore) -> Hand:
    """Acquire as an owner does: again, as long as that is unavailable."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return Hand(store, await store.acquire(PARTITIONS))
            except UnavailableError:
                continue


async def test_a_frozen_server_makes_every_call_unavailable_and_the_pool_recovers(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    async with impatient(dsn) as pool:
        store = PostgresStore(pool, 0, timeout=2)
        hand = await until_available(store)
        await hand.commit(puts("s", [entry(1)]))
        freeze(postgres)
        try:
            async with asyncio.timeout(PATIENCE):
                for call in calls(store, hand):
                    with pytest.raises(UnavailableError):
                        await call()
        finally:
            postgres.resume()
        hand = await until_available(store)
        # What was under way may have taken effect or not, whole in either case.
        assert len((await store.load(["s"]))["s"]) == (2 if hand.next_offset == 20 else 1)
        await hand.commit(puts("t", [entry(1)]))


async def test_a_killed_server_makes_every_call_unavailable_and_keeps_what_was_committed(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    async with impatient(dsn) as pool:
        store = PostgresStore(pool, 0)
        hand = await until_available(store)
        await hand.commit(puts("s", [entry(1)]))
        postgres.kill()
        for call in calls(store, hand):
            with pytest.raises(UnavailableError):
                await call()
        postgres.restart()
        hand = await until_available(store)
        assert hand.next_offset == 10
        assert len((await store.load(["s"]))["s"]) == 1


async def test_a_restart_of_the_server_costs_no_more_than_unavailable_calls(
    postgres: EmbeddedPostgres, dsn: str
) -> None:
    async with impatient(dsn) as pool:
        store = PostgresStore(pool, 0)
        for number in (1, 2, 3):
            hand = await until_available(store)
            await hand.commit(puts("s", [entry(number)]))
            await asyncio.to_thread(postgres.restart)
        hand = await until_available(store)
        assert hand.next_offset == 30
        assert len((await store.load(["s"]))["s"]) == 3


# A worker that freezes. A process that is stopped keeps its connections; so does a virtual machine that pauses.


@asynccontextmanager
async def committing(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.committer",
        dsn,
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_worker_that_froze_while_committing_does_not_hold_up_its_successor(dsn: str) -> None:
    async with committing(dsn) as frozen, impatient(dsn, timeout=5) as pool:
        assert frozen.stdout is not None
        for _ in range(12):
            for _ in range(3):
                assert await asyncio.wait_for(frozen.stdout.readline(), PATIENCE) == b"committing\n"
            os.kill(frozen.pid, signal.SIGSTOP)
            successor = PostgresStore(pool, 0)
            hand = Hand(successor, await successor.acquire(PARTITIONS))
            await hand.commit()
            os.kill(frozen.pid, signal.SIGCONT)


async def test_a_worker_that_froze_while_acquiring_loses_the_row_that_it_locked(dsn: str) -> None:
    frozen: Any = await asyncpg.connect(dsn)
    await frozen.transaction().start()
    await frozen.execute(statement("limit_idling"))
    await frozen.fetchrow(statement("acquire"), [0], [PARTITIONS], False)
    async with impatient(dsn, timeout=PATIENCE) as pool:
        assert (await PostgresStore(pool, 0, timeout=PATIENCE).acquire(PARTITIONS)).epoch == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        await frozen.execute("select 1")
    frozen.terminate()


class FrozenAfter:
    """A wire to Postgres on which the client falls silent: of what it sends, ``most`` messages arrive."""

    def __init__(self, proxy: Proxy) -> None:
        self.most: int | None = None  # none: all
        self.silent = asyncio.Event()
        self._proxy = proxy

    def sent(self, data: bytes) -> None:
        """See Wire."""
        if self.most is not None:
            self.most -= 1
            if self.most == 0:
                self._proxy.swallowed.add("to server")

    def answered(self, data: bytes) -> bytes | None:
        """See Wire."""
        if self.most == 0:
            self.silent.set()  # the last message that arrived had its effect
        return data


async def frozen_in_the_middle(
    dsn: str, messages: int, cache: int, does: Callable[[Any], Awaitable[Any]], another: Awaitable[Any]
) -> bool:
    """Freeze a worker after so many messages of what it ``does`` with its pool; whether it sends so many.
    ``another`` does the same then, and is not held up.
    """
    address = urlsplit(dsn)
    assert address.port is not None
    wires: list[FrozenAfter] = []
    proxy = Proxy(address.port, lambda: wires[-1])
    wires.append(FrozenAfter(proxy))
    async with proxy:
        host = f"{address.username}:{address.password}@127.0.0.1:{proxy.port}"
        through = address._replace(netloc=host).geturl()
        pool = await open_pool(through, size=1, timeout=PATIENCE, statement_cache_size=cache)
        wires[-1].most = messages
        doing = asyncio.ensure_future(does(pool))
        silent = asyncio.create_task(wires[-1].silent.wait())
        try:
            await asyncio.wait({doing, silent}, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(PATIENCE / 2):
                await another
            return silent.done()
        finally:
            silent.cancel()
            doing.cancel()
            pool.terminate()
            await asyncio.gather(doing, silent, return_exceptions=True)


# Sizes of the cache of prepared statements: a worker's usual one, and none, as behind a pooler.
CACHES = (100, 0)
FREEZES = 14


async def test_wherever_a_worker_freezes_while_acquiring_another_acquires(dsn: str) -> None:
    places = len(CACHES) * FREEZES

    def acquire(pool: Any, partition: int) -> Awaitable[Any]:
        return PostgresStore(pool, partition, timeout=PATIENCE).acquire(places)

    async def freezes(first: int, cache: int) -> list[bool]:
        return await asyncio.gather(
            *(
                frozen_in_the_middle(
                    dsn, number, cache, partial(acquire, partition=one), acquire(direct, one)
                )
                for number, one in enumerate(range(first, first + FREEZES), 1)
            )
        )

    direct = await open_pool(dsn, size=places, timeout=PATIENCE)
    try:
        # All at once: Postgres takes 5 s to end the transaction of a frozen worker.
        found = await asyncio.gather(*(freezes(place * FREEZES, cache) for place, cache in enumerate(CACHES)))
    finally:
        direct.terminate()
    for froze, cache in zip(found, CACHES, strict=True):
        assert froze == sorted(froze, reverse=True), cache
        assert 6 <= sum(froze) < FREEZES, f"{cache}: it froze after each message, the last one too"


PLACES = 30


@pytest.mark.parametrize("cache", CACHES)
async def test_wherever_a_worker_freezes_while_a_database_is_new_another_records_it(
    postgres: EmbeddedPostgres, dsn: str, cache: int
) -> None:
    """Each of the new databases becomes the first of a set of two, the second one of which is recorded already."""
    second = ShardSlot(1, 2, uuid4())

    async def record(first: Any, cache: int = 100) -> Any:
        connections = [first, await asyncpg.connect(dsn, statement_cache_size=cache)]
        try:
            return await note_places(connections, "waypost")
        finally:
            connections[1].terminate()

    async def record_from(pool: Any) -> Any:
        async with pool.acquire() as connection:
            return await record(connection, cache)

    async def record_directly(new: str) -> None:
        connection = await asyncpg.connect(new)
        assert await record(connection) == second.set_id
        await connection.close()

    other: Any = await asyncpg.connect(dsn)
    await other.execute(statement("shard_note"), *second)
    await other.close()
    template = postgres.create_database("new")
    await migrate_dsn(template)
    new = [postgres.create_database(f"new_{number}", "new") for number in range(PLACES)]
    try:
        froze = await asyncio.gather(
            *(
                frozen_in_the_middle(one, number, cache, record_from, record_directly(one))
                for number, one in enumerate(new, 1)
            )
        )
    finally:
        for name in ("new", *(f"new_{number}" for number in range(PLACES))):
            postgres.drop_database(name)
    assert froze == sorted(froze, reverse=True)
    assert 12 <= sum(froze) < PLACES, "it froze after each message, the last one too"
