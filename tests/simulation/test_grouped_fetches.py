"""Fetches of several owners in one request: what becomes of each when the request fails or one of them is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.simulation.agents import sessions_of
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import UnavailableError

CREATE = b'{"name":"n","data":{}}'
PARTITIONS = 3
COMMANDS = 8


@pytest.fixture
def world() -> World:
    """One process that owns three partitions, in which commands come at the same moments. No faults."""
    world = World(WorldPlan(seed=1, processes=1, partitions=PARTITIONS, commands=0, duration=20.0))
    for number in range(COMMANDS):
        for partition in range(PARTITIONS):
            session_id = sessions_of(partition, PARTITIONS, 1)[0]
            at = 2 + number * 0.4
            world.loop.call_at(
                at, world.traffic.send, partition, session_id, EventType.CREATE, CREATE, context=OUTSIDE
            )
    return world


def groups(world: World) -> list[int]:
    return [size for fetches in world.topic.fetches.values() for size in fetches.sizes]


def test_owners_of_a_process_fetch_together(world: World) -> None:
    world.run()
    assert judge(world).problems == []
    assert max(groups(world)) == PARTITIONS
    assert world.fleet.ends == {}


def test_a_request_without_an_answer_ends_the_terms_of_its_own_owners(world: World) -> None:
    met: list[str] = []
    call = world.kafka.call

    async def watched(what: str, effect: Callable[[], Any], *part: Any) -> Any:
        if not met and what.startswith("fetch ") and what.count(" from ") == PARTITIONS:
            met.append(what)
            raise UnavailableError("the connection broke")
        return await call(what, effect, *part)

    world.kafka.call = watched  # type: ignore[method-assign, assignment]
    world.run()
    assert met
    assert judge(world).problems == []
    assert world.fleet.ends == {"UnavailableError": PARTITIONS}


def test_one_that_is_refused_takes_nobody_along(world: World) -> None:
    log = world.topic.partitions[1]
    world.loop.call_at(3.0, log.recreate, context=OUTSIDE)
    world.run()
    assert set(world.fleet.ends) == {"RefusedError"}
    applied = [world.database_of(partition).tables[partition].next_offset for partition in (0, 2)]
    assert applied == [COMMANDS, COMMANDS]
