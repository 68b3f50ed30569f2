"""Small worlds, in which a test lets one thing go wrong."""

from tests.simulation.agents import sessions_of
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType

CREATE = b'{"name":"n","data":{}}'


def quiet(**changes: object) -> World:
    """One process, one partition, no agents and no faults."""
    plan = WorldPlan(seed=1, processes=1, partitions=1, commands=0, duration=5.0)
    for name, value in changes.items():
        setattr(plan, name, value)
    return World(plan)


def commands(world: World, *times: float) -> None:
    session_id = sessions_of(0, 1, 1)[0]
    for at in times:
        world.loop.call_at(at, world.traffic.send, 0, session_id, EventType.CREATE, CREATE)
