"""A Kafka consumer that stopped without an error is replaced, and no event is missed by that.

Kafka clients are known to do so. Here the part of the client that does the work is ended from outside, in a client that
is otherwise alive and connected.
"""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from tests.integration.subscribing import (
    GROUP,
    Results,
    assigned,
    beneath,
    by_session,
    committed,
    results,
    subjects,
    subscriber,
    world,
)
from tests.support.deployment import Deployment
from tests.support.timeouts import PATIENCE

from waypost import Event, Subscriber
from waypost.kafka.group_member import GroupMember

STUCK_AFTER = 0.6


__all__ = ["results", "world"]


async def still(events: Subscriber) -> None:
    """End what fetches records, as the known bugs do."""
    tasks = set(beneath(events)._reader._tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize("group", [None, GROUP])
async def test_an_iteration_continues_after_its_consumer_stopped_fetching(
    world: Deployment, results: Results, group: str | None
) -> None:
    told: list[str] = []
    found: list[Event] = []
    sent = await results.many(60)
    events = subscriber(
        world, group=group, from_beginning=True, stuck_after=STUCK_AFTER, on_restart=told.append
    )

    async def collect() -> None:
        async for event in events:
            found.append(event)

    async with events:
        task = asyncio.create_task(collect())
        await world.until(lambda: len(found) >= 60)
        await still(events)
        sent += await results.many(60)
        await world.until(lambda: set(subjects(found)) == set(sent))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert events.restarts == len(told) >= 1
    why = told[0]
    assert "was stuck and is replaced" in why
    assert world.topics.results in why
    assert by_session(list(dict.fromkeys(subjects(found)))) == by_session(sent)


async def test_handlers_under_way_are_finished_before_the_consumer_is_replaced(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(30)
    handled: list[str] = []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(event: Event) -> None:
        if event.subject == sent[-1]:
            entered.set()
            await leave.wait()
        handled.append(event.subject or "")

    def on_restart(_: str) -> None:
        leave.set()

    async with subscriber(
        world, group=GROUP, from_beginning=True, stuck_after=STUCK_AFTER, on_restart=on_restart
    ) as events:
        task = asyncio.create_task(events.run(handler))
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
        await still(events)
        sent += await results.many(30)
        await world.until(lambda: len(handled) >= 60)
        assert by_session(list(dict.fromkeys(handled))) == by_session(sent)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sum(offset or 0 for offset in (await committed(world)).values()) == 60


async def test_a_member_that_never_gets_its_partitions_starts_over(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    joining = asyncio.Event()

    async def stuck(_: GroupMember) -> list[TopicPartition]:
        joining.set()
        await asyncio.Event().wait()
        raise AssertionError

    sent = await results.many(30)
    found: list[Event] = []
    events = subscriber(
        world,
        group=GROUP,
        from_beginning=True,
        stuck_after=STUCK_AFTER,
        kafka_options={"rebalance_timeout_ms": 1000},
    )

    async def collect() -> None:
        async for event in events:
            found.append(event)

    with monkeypatch.context() as patched:
        patched.setattr(GroupMember, "_join", stuck)
        await events.start()
        async with asyncio.timeout(PATIENCE):
            await joining.wait()
    async with events:
        task = asyncio.create_task(collect())
        await world.until(lambda: len(found) >= 30)
        assert events.restarts >= 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert by_session(subjects(found)) == by_session(sent)


async def test_one_that_is_merely_idle_or_has_a_slow_application_is_left_alone(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(3, sessions=1)
    async with subscriber(world, group=GROUP, from_beginning=True, stuck_after=STUCK_AFTER) as events:
        await assigned(world, events)
        watchdog = beneath(events)._watchdog
        looked: list[Any] = []
        trouble = watchdog.trouble

        async def counted() -> str | None:
            looked.append(await trouble())
            return None

        watchdog.trouble = counted  # type: ignore[method-assign]
        taken = []
        async for event in events:
            taken.append(event.subject)
            # The application takes its time, while more has come.
            many = len(looked) + 10
            await world.until(lambda many=many: len(looked) >= many)
            if len(taken) == 3:
                break
        assert taken == sent
        waiting = asyncio.create_task(anext(aiter(events)))
        many = len(looked) + 10
        await world.until(lambda: len(looked) >= many)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert set(looked) == {None}


def test_a_patience_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="stuck_after"):
        Subscriber("127.0.0.1:1", stuck_after=0)
