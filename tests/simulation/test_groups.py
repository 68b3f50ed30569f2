"""Batches of several partitions in one statement: one is fenced, one is in doubt, or their worker dies behind them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.simulation.agents import sessions_of
from tests.simulation.loop import OUTSIDE, current_process
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import FencedError, UnavailableError

GROUP = [0, 1, 2]
BEFORE = 3
Call = Callable[[], Awaitable[Any]]


def in_group(rolled_back: float = 0.0) -> World:
    """One process with four partitions. What comes for three of them waits for the commit of the fourth."""
    plan = WorldPlan(seed=1, processes=1, partitions=4, commands=0, duration=10.0, rolled_back=rolled_back)
    world = World(plan)
    for partition in (*GROUP, BEFORE):
        (session_id,) = sessions_of(partition, plan.partitions, 1)
        create = (partition, session_id, EventType.CREATE, b'{"name":"n","data":{}}')
        at = 1.0 if partition == BEFORE else 1.1
        world.loop.call_at(at, world.traffic.send, *create, context=OUTSIDE)
    return world


def intercept(world: World, deal_with: Callable[[str, Call], Awaitable[Any]]) -> None:
    """Let ``deal_with`` send the statements that commit, or not."""
    call = world.databases[0].server.call

    async def called(what: str, *effects: Any) -> Any:
        if " commit " not in what:
            return await call(what, *effects)
        if partitions_of(what) == [BEFORE]:
            await asyncio.sleep(0.5)
            return await call(what, *effects)
        return await deal_with(what, lambda: call(what, *effects))

    world.databases[0].server.call = called  # type: ignore[method-assign, assignment]


def partitions_of(what: str) -> list[int]:
    return sorted(int(part.partition(" ")[0][1:]) for part in what.split(", "))


def epochs(world: World) -> list[int]:
    return [world.databases[0].tables[partition].epoch for partition in GROUP]


def answered(world: World) -> list[int]:
    return [world.last_answered(partition) for partition in GROUP]


def test_one_that_is_fenced_ends_its_own_term_and_nobody_else_s() -> None:
    world = in_group()
    seen: dict[str, Any] = {}

    async def deal_with(what: str, call: Call) -> Any:
        if "group" not in seen:
            seen["group"] = partitions_of(what)
            world.fleet.disown(world.fleet.hosts[0], 1)
            world.fleet.own(world.fleet.boot(1), 1)
            await asyncio.sleep(2)  # of virtual time, in which the heir acquires
            answer = await call()
            seen["outcomes"] = [type(outcome) for outcome in answer]
            return answer
        return await call()

    intercept(world, deal_with)
    world.loop.call_at(
        9, lambda: seen.update(epochs=epochs(world), answered=answered(world)), context=OUTSIDE
    )
    world.run()
    assert seen["group"] == GROUP
    assert sorted(map(str, seen["outcomes"])) == sorted(map(str, [FencedError, type(None), type(None)]))
    assert seen["epochs"] == [1, 2, 1]
    assert seen["answered"] == [0, 0, 0]
    assert world.fleet.ends == {"FencedError": 1}
    assert judge(world).problems == []


def test_after_a_rollback_each_has_its_own_fate() -> None:
    world = in_group(rolled_back=1.0)
    sent: list[list[int]] = []
    seen: dict[str, Any] = {}

    async def deal_with(what: str, call: Call) -> Any:
        partitions = partitions_of(what)
        first = partitions not in sent
        sent.append(partitions)
        if first and partitions == [1]:
            raise UnavailableError("cannot be reached")
        answer = await call()
        if first and partitions == [2]:
            raise UnavailableError("the reply was lost")
        return answer

    intercept(world, deal_with)
    world.loop.call_at(
        9, lambda: seen.update(epochs=epochs(world), answered=answered(world)), context=OUTSIDE
    )
    world.run()
    assert sent[0] == GROUP
    assert sorted(sent[1:4]) == [[0], [1], [2]]
    assert seen == {"epochs": [1, 2, 2], "answered": [0, 0, 0]}
    assert world.fleet.ends == {"UnavailableError": 2}
    assert judge(world).problems == []


def test_a_group_whose_reply_is_lost_is_in_doubt_as_a_whole_and_counts_once() -> None:
    world = in_group()
    sent: list[list[int]] = []

    async def deal_with(what: str, call: Call) -> Any:
        sent.append(partitions_of(what))
        answer = await call()
        if len(sent) == 1:
            raise UnavailableError("the reply was lost")
        return answer

    intercept(world, deal_with)
    world.run()
    assert sent == [GROUP], "a repetition"
    assert world.fleet.ends == {"UnavailableError": len(GROUP)}
    assert world.fleet.reemitted == len(GROUP)
    assert judge(world).problems == []


def test_a_worker_that_dies_between_the_commit_of_a_group_and_its_results_leaves_them_to_its_heir() -> None:
    world = in_group()
    groups: list[list[int]] = []

    def take_over() -> None:
        heir = world.fleet.boot(0)
        for partition in (*GROUP, BEFORE):
            world.fleet.own(heir, partition)

    async def deal_with(what: str, call: Call) -> Any:
        answer = await call()
        if not groups:
            groups.append(partitions_of(what))
            assert current_process() is world.fleet.hosts[0].process
            world.fleet.crash(world.fleet.hosts[0])
            world.loop.call_later(1, take_over, context=OUTSIDE)
        return answer

    intercept(world, deal_with)
    world.run()
    assert groups == [GROUP]
    assert world.fleet.reemitted == len(GROUP)
    assert answered(world) == [0, 0, 0]
    assert judge(world).problems == []
