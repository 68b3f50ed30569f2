"""Partitions that a process takes over at the same time: one is fenced, one is in doubt, or the server takes none."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.simulation.agents import sessions_of
from tests.simulation.loop import OUTSIDE
from tests.simulation.oracle import judge
from tests.simulation.plan import WorldPlan
from tests.simulation.world import World

from waypost.wire.event_types import EventType
from waypost_worker.partition.ports import FencedError, UnavailableError

PARTITIONS = 4
CREATE = b'{"name":"n","data":{}}'
Call = Callable[[], Awaitable[Any]]


def takeover(rolled_back: float = 0.0) -> World:
    """One process that begins with four partitions, to each of which a command comes."""
    world = World(
        WorldPlan(
            seed=1, processes=1, partitions=PARTITIONS, commands=0, duration=10.0, rolled_back=rolled_back
        )
    )
    for partition in range(PARTITIONS):
        create = (partition, sessions_of(partition, PARTITIONS, 1)[0], EventType.CREATE, CREATE)
        world.loop.call_at(1.0, world.traffic.send, *create, context=OUTSIDE)
    return world


class Statements:
    """The statements of a kind, in order. The first waits, so that those of the other three partitions meet.

    ``deal_with`` sends the group, or not.
    """

    def __init__(self, world: World, kind: str, deal_with: Callable[[Call], Awaitable[Any]]) -> None:
        self.sent: list[list[int]] = []
        self.group: list[int] = []
        self._kind = kind
        self._deal_with = deal_with
        self.call: Callable[..., Awaitable[Any]] = world.databases[0].server.call
        world.databases[0].server.call = self._called  # type: ignore[method-assign, assignment]

    async def _called(self, what: str, *effects: Any) -> Any:
        partitions = sorted(int(found) for found in re.findall(rf"p(\d+) {self._kind}", what))
        if not partitions:
            return await self.call(what, *effects)
        self.sent.append(partitions)
        if len(self.sent) == 1:
            await asyncio.sleep(0.5)
        if len(partitions) < PARTITIONS - 1 or self.group:
            return await self.call(what, *effects)
        self.group = partitions
        return await self._deal_with(lambda: self.call(what, *effects))


def epochs(world: World) -> list[int]:
    return [world.databases[0].tables[partition].epoch for partition in range(PARTITIONS)]


def ran_well(world: World) -> bool:
    world.run()
    return judge(world).problems == [] and all(
        world.last_answered(partition) == 0 for partition in range(PARTITIONS)
    )


def watched(world: World) -> list[list[int]]:
    """The epochs just before the world heals, when owners are acquired once more."""
    seen: list[list[int]] = []
    world.loop.call_at(9, lambda: seen.append(epochs(world)), context=OUTSIDE)
    return seen


def rival_of(world: World, partition: int) -> None:
    """Another process takes a partition from the first one, which does not know of it."""
    world.fleet.disown(world.fleet.hosts[0], partition)
    world.fleet.own(world.fleet.boot(1), partition)


@pytest.mark.parametrize("kind", ["acquire", "record", "save position"])
def test_statements_of_a_takeover_go_together(kind: str) -> None:
    world = takeover()
    seen = watched(world)
    statements = Statements(world, kind, lambda call: call())
    assert ran_well(world)
    assert len(statements.group) == PARTITIONS - 1
    assert world.fleet.ends == {}
    assert seen == [[1] * PARTITIONS]


def test_an_acquisition_whose_reply_was_lost_is_repeated_for_each_alone() -> None:
    world = takeover()
    seen = watched(world)

    async def lose(call: Call) -> Any:
        await call()
        raise UnavailableError("the reply was lost")

    statements = Statements(world, "acquire", lose)
    assert ran_well(world)
    assert sorted(statements.sent[2:5]) == [[partition] for partition in statements.group]
    assert world.fleet.ends == {}
    assert seen == [[2 if partition in statements.group else 1 for partition in range(PARTITIONS)]]


def test_of_a_group_that_is_repeated_one_may_be_unavailable_and_ends_its_own_term() -> None:
    world = takeover()
    call_server = world.databases[0].server.call
    met: list[str] = []

    async def deal_with(call: Call) -> Any:
        alone = statements.group[1]

        async def called(what: str, *effects: Any) -> Any:
            if not met and what == f"p{alone} acquire":
                met.append(what)
                raise UnavailableError("cannot be reached")
            return await call_server(what, *effects)

        statements.call = called
        raise UnavailableError("cannot be reached")

    statements = Statements(world, "acquire", deal_with)
    assert ran_well(world)
    assert met
    assert world.fleet.ends == {"UnavailableError": 1}


@pytest.mark.parametrize("kind", ["record", "save position"])
def test_one_that_is_fenced_ends_its_own_term_and_nobody_else_s(kind: str) -> None:
    world = takeover()
    outcomes: list[Any] = []

    async def fence(call: Call) -> Any:
        rival_of(world, statements.group[1])
        await asyncio.sleep(2)  # of virtual time, in which the rival acquires
        outcomes.extend(await call())
        return outcomes

    statements = Statements(world, kind, fence)
    seen = watched(world)
    assert ran_well(world)
    fenced = statements.group[1]
    assert sorted(map(str, map(type, outcomes))) == sorted(map(str, [FencedError, type(None), type(None)]))
    assert world.fleet.ends == {"FencedError": 1}
    assert [epoch > 1 for epoch in seen[0]] == [partition == fenced for partition in range(PARTITIONS)]


@pytest.mark.parametrize("kind", ["record", "save position"])
def test_updates_whose_reply_was_lost_are_in_doubt_and_not_repeated(kind: str) -> None:
    world = takeover()

    async def lose(call: Call) -> Any:
        await call()
        raise UnavailableError("the reply was lost")

    statements = Statements(world, kind, lose)
    assert ran_well(world)
    assert world.fleet.ends == {"UnavailableError": len(statements.group)}


def test_what_the_server_rolls_back_or_leaves_out_is_repeated_alone() -> None:
    world = takeover(rolled_back=1.0)
    seen = watched(world)
    statements = Statements(world, "acquire", lambda call: call())
    assert ran_well(world)
    assert sorted(statements.sent[2:5]) == [[partition] for partition in statements.group]
    assert world.fleet.ends == {}
    assert seen == [[1] * PARTITIONS]


@pytest.mark.parametrize("kind", ["bounds of commands", "bounds of results"])
def test_a_question_without_an_answer_ends_the_terms_of_those_that_asked(kind: str) -> None:
    world = takeover()
    call = world.kafka.call
    met: list[str] = []

    async def called(what: str, *effects: Any) -> Any:
        if what.startswith(kind) and not met:
            met.append("first")
            await asyncio.sleep(0.5)
        elif what.startswith(kind) and met == ["first"] and what.count(", ") == PARTITIONS - 2:
            met.append(what)
            raise UnavailableError("the connection broke")
        return await call(what, *effects)

    world.kafka.call = called  # type: ignore[method-assign, assignment]
    assert ran_well(world)
    assert len(met) == 2
    assert world.fleet.ends == {"UnavailableError": PARTITIONS - 1}
