"""The way to a server fails, through a proxy that only the workers use: cut, delayed, half cut.

Breaks: all connections to Kafka, to Postgres or to both are reset again and again; every piece of data takes 300
ms longer; requests get through and replies do not, or the other way round, with connections that stay open.
Must hold: nothing is lost, doubled or out of order; all partitions go on within 30 s after the way is clear.
"""

from collections.abc import AsyncIterator

import pytest
from tests.faults.processes import REQUEST_TIMEOUT
from tests.faults.scene import Scene
from tests.faults.ways import Ways, ways_of

WAYS = ("kafka", "postgres", "both")


@pytest.fixture
async def ways(shared: Scene) -> AsyncIterator[Ways]:
    async with ways_of(shared) as made:
        yield made
        await shared.kill_all()  # before the proxies go


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "both" else pytest.mark.long) for way in WAYS]
)
async def test_cut_connections(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for _ in range(5):
        await shared.for_a_while(shared.random.random())
        for proxy in ways.named(way):
            proxy.cut()
    assert all(proxy.cuts for proxy in ways.named(way))
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
async def test_no_connection_for_a_while(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for proxy in ways.named(way):
        proxy.refusing = True
        proxy.cut()
    await shared.for_a_while(6)
    for proxy in ways.named(way):
        proxy.heal()
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
async def test_delayed_connections(shared: Scene, ways: Ways, way: str) -> None:
    await shared.crew(2)
    for proxy in ways.named(way):
        proxy.delay = 0.3
    await shared.answered(200)
    for proxy in ways.named(way):
        proxy.heal()
    await shared.healed()
    await shared.judge()


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("direction", ["to server", "to client"])
async def test_half_cut_connections(shared: Scene, ways: Ways, way: str, direction: str) -> None:
    await shared.crew(2)
    for proxy in ways.named(way):
        proxy.swallowed.add(direction)  # type: ignore[arg-type]
    await shared.for_a_while(2 * REQUEST_TIMEOUT)
    for proxy in ways.named(way):
        proxy.heal()
    await shared.healed()
    await shared.judge()
