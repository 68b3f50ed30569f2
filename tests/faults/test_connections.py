"""The way to a server fails, through a proxy that only the workers use: cut, delayed, half cut.

Breaks: all connections to Kafka, to Postgres or to both are reset again and again; every piece of data takes 300
ms longer; requests get through and replies do not, or the other way round, with connections that stay open.
Must hold: nothing is lost, doubled or out of order; all partitions go on within 30 s after the way is clear.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.faults.processes import REQUEST_TIMEOUT
from tests.faults.proxy import HOST, Proxy
from tests.faults.scene import Scene

WAYS = ("kafka", "postgres", "both")


def port_of_dsn(dsn: str) -> int:
    port = urlsplit(dsn).port
    assert port is not None
    return port


def through(dsn: str, port: int) -> str:
    """The connection string with another port."""
    parts = urlsplit(dsn)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{HOST}:{port}"))


class Ways:
    """The proxies of a scene, by server."""

    def __init__(self, kafka: Proxy, postgres: Proxy) -> None:
        self.by_name = {"kafka": [kafka], "postgres": [postgres], "both": [kafka, postgres]}


@pytest.fixture
async def ways(shared: Scene) -> AsyncIterator[Ways]:
    broker = int(shared.endpoints.bootstrap_servers.rpartition(":")[2])
    async with AsyncExitStack() as stack:
        kafka = await stack.enter_async_context(Proxy(broker))
        postgres = await stack.enter_async_context(Proxy(port_of_dsn(shared.endpoints.postgres_dsn)))
        shared.worker_arguments = ("--redirect", f"{broker}={kafka.port}")
        shared.worker_dsn = through(shared.endpoints.postgres_dsn, postgres.port)
        yield Ways(kafka, postgres)
        # Proxies go first, and workers with them: none may wait for a way that is not there any more.
        for worker in shared.alive:
            await worker.end(signal.SIGKILL)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "both" else pytest.mark.long) for way in WAYS]
)
async def test_cut_connections(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for _ in range(5):
        await shared.for_a_while(shared.random.random())
        for proxy in ways.by_name[way]:
            proxy.cut()
    assert all(proxy.cuts for proxy in ways.by_name[way])
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
async def test_no_connection_for_a_while(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for proxy in ways.by_name[way]:
        proxy.refusing = True
        proxy.cut()
    await shared.for_a_while(6)
    for proxy in ways.by_name[way]:
        proxy.heal()
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
async def test_delayed_connections(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for proxy in ways.by_name[way]:
        proxy.delay = 0.3
    await shared.answered(200)
    for proxy in ways.by_name[way]:
        proxy.heal()
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("direction", ["to server", "to client"])
async def test_half_cut_connections(shared: Scene, ways: Ways, way: str, direction: str) -> None:
    await shared.crew(2)
    for proxy in ways.by_name[way]:
        proxy.swallowed.add(direction)  # type: ignore[arg-type]
    await asyncio.sleep(2 * REQUEST_TIMEOUT)
    for proxy in ways.by_name[way]:
        proxy.heal()
    await shared.healed()
    await shared.judge()
