"""Appends of several owners in one request: what becomes of each when the request fails or one of them is fenced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.simulation.agents import sessions_of
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import ResultRecord, UnavailableError

CREATE = b'{"name":"n","data":{}}'
PARTITIONS = 3
COMMANDS = 8


@pytest.fixture
def world() -> World:
    """One process that owns three partitions, in which commands come at the same moments. No faults."""
    plan = WorldPlan(
        seed=1, processes=1, partitions=PARTITIONS, commands=0, duration=20.0, openings=1.0, cache_items=1
    )
    world = World(plan)
    for number in range(COMMANDS):
        for partition in range(PARTITIONS):
            session_id = sessions_of(partition, PARTITIONS, 1)[0]
            at = 2 + number * 0.4
            world.loop.call_at(
                at, world.traffic.send, partition, session_id, EventType.CREATE, CREATE, context=OUTSIDE
            )
    return world


def groups(world: World) -> list[int]:
    return [size for host in world.fleet.hosts for size in host.appends.sizes]


def when_a_group_is_sent(world: World, then: Callable[[Callable[[], Any]], Any]) -> list[str]:
    """Let ``then`` decide, once, what becomes of a request with the results of several partitions."""
    met: list[str] = []
    call = world.kafka.call

    async def watched(what: str, effect: Callable[[], Any], *part: Any) -> Any:
        if not met and what.startswith("append ") and what.count(" under ") == PARTITIONS:
            met.append(what)
            effect = partial(then, effect)
        return await call(what, effect, *part)

    world.kafka.call = watched  # type: ignore[method-assign, assignment]
    return met


def test_owners_of_a_process_append_together(world: World) -> None:
    world.run()
    assert judge(world).problems == []
    assert max(groups(world)) == PARTITIONS
    assert world.fleet.ends == {}


@pytest.mark.parametrize("landed", [True, False])
def test_a_request_without_a_reply_ends_the_terms_of_its_own_owners(world: World, landed: bool) -> None:
    def lose(effect: Callable[[], Any]) -> Any:
        if landed:
            effect()
        raise UnavailableError("the reply was lost")

    met = when_a_group_is_sent(world, lose)
    world.run()
    assert met
    assert judge(world).problems == []
    assert world.fleet.ends == {"UnavailableError": PARTITIONS}


def test_one_that_is_fenced_takes_nobody_along(world: World) -> None:
    def fence_the_second(effect: Callable[[], Any]) -> Any:
        fence = world.coordinator.claim("sim.1")
        record = world.results[1].records[0]  # the owner's own fence record
        world.results[1].append(fence, 0, [ResultRecord(record.key, record.value, record.headers)])
        return effect()

    met = when_a_group_is_sent(world, fence_the_second)
    world.run()
    assert met
    assert judge(world).problems == []
    assert world.fleet.ends == {"FencedError": 1}
