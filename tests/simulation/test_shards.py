"""A deployment with a database for each half of its partitions: what befalls one is not felt beyond its partitions."""

import re
from collections import Counter
from collections.abc import Callable

from tests.simulation.agents import sessions_of
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType

CREATE = b'{"name":"n","data":{}}'


def two_databases(happens: Callable[[World], None]) -> tuple[World, Counter[str]]:
    """A process that owns three partitions, with a command to each every second. Something ``happens`` after five;
    the world has run, and so many terms has each partition had.
    """
    trace: list[str] = []
    plan = WorldPlan(seed=1, processes=1, partitions=3, shards=2, commands=0, duration=20.0)
    world = World(plan, trace.append)
    for partition in range(3):
        session_id = sessions_of(partition, 3, 1)[0]
        for second in range(1, 16):
            world.loop.call_at(second, world.traffic.send, partition, session_id, EventType.CREATE, CREATE)
    world.loop.call_at(5, happens, world)
    world.run()
    return world, Counter(found[1] for line in trace if (found := re.search(r"w0\.0 owns (p\d)", line)))


def test_each_database_holds_the_partitions_of_its_shard_and_no_others() -> None:
    world, terms = two_databases(lambda _: None)
    assert [set(database.tables) for database in world.databases] == [{0, 2}, {1}]
    assert terms == {"p0": 1, "p1": 1, "p2": 1}
    assert judge(world).problems == []


def test_while_one_database_is_unreachable_the_partitions_of_the_other_answer() -> None:
    answered: list[list[int]] = []

    def look(world: World) -> None:
        answered.append([world.last_answered(partition) for partition in range(3)])

    def goes(world: World) -> None:
        world.databases[1].server.down = True
        world.loop.call_later(0.9, look, world)
        world.loop.call_later(8.9, look, world)
        world.loop.call_later(9, comes_back, world)

    def comes_back(world: World) -> None:
        world.databases[1].server.down = False

    world, terms = two_databases(goes)
    before, after = answered
    assert [later - sooner for sooner, later in zip(before, after, strict=True)] == [8, 0, 8]
    assert terms["p0"] == terms["p2"] == 1
    assert terms["p1"] > 1
    assert judge(world).problems == []


def test_one_database_loses_everything_and_the_partitions_of_the_other_do_not_notice() -> None:
    lost: list[int] = []
    world, terms = two_databases(lambda world: lost.append(world.databases[1].fail_over(1000)))
    assert lost[0] > 4
    assert terms["p0"] == terms["p2"] == 1
    assert terms["p1"] > 1
    verdict = judge(world)
    assert verdict.problems == []
    assert verdict.commands == 45
