"""Handlers on a real Kafka: in order per session, many sessions at once, again when they fail."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.integration.subscribing import (
    GROUP,
    Results,
    beneath,
    by_session,
    committed,
    drain,
    results,
    subjects,
    subscriber,
    world,
)
from tests.support.deployment import Deployment
from tests.support.timeouts import PATIENCE

from waypost import Deduplicator, Event

__all__ = ["results", "world"]


async def test_a_handler_that_is_not_async_ends_the_run_at_its_first_call(
    world: Deployment, results: Results
) -> None:
    await results.many(3, sessions=1)
    calls: list[Event] = []

    async def failing(event: Event) -> None:
        raise RuntimeError("mine")

    async with subscriber(world, group=GROUP, from_beginning=True) as events:
        with pytest.raises(TypeError, match="the handler must be an async function"):
            await events.run(calls.append)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="on_failure must be an async function"):
            await events.run(failing, retries=0, on_failure=lambda *_: None)  # type: ignore[arg-type, return-value]
    assert len(calls) == 1
    assert set((await committed(world)).values()) == {0}, "nothing was handled"


async def test_a_handler_gets_each_session_in_order_and_many_sessions_in_parallel(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(200, sessions=20)
    found: list[Event] = []
    running: Counter[str] = Counter()
    most = 0

    async def handler(event: Event) -> None:
        nonlocal most
        running[event.session_id or ""] += 1
        most = max(most, running.total())
        assert running[event.session_id or ""] == 1
        await asyncio.sleep(0.001)
        found.append(event)
        running[event.session_id or ""] -= 1
        if len(found) == 200:
            finished.set()

    finished = asyncio.Event()
    events = subscriber(world, group=GROUP, from_beginning=True)
    task = asyncio.create_task(events.run(handler, concurrency=8))
    async with asyncio.timeout(PATIENCE):
        await finished.wait()
    await events.close()
    await task
    assert by_session(subjects(found)) == by_session(sent)
    assert 2 <= most <= 8
    assert sum(offset or 0 for offset in (await committed(world)).values()) == 200


async def test_a_handler_that_fails_is_tried_again_and_then_the_callback_gets_the_event(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._FIRST_WAIT", 0.001)
    await results.many(3, sessions=1)
    tries: Counter[str] = Counter()
    failed: list[tuple[str | None, str]] = []

    async def handler(event: Event) -> None:
        tries[event.subject or ""] += 1
        if event.subject == "session-0:2" or tries[event.subject or ""] == 1:
            raise RuntimeError("not now")
        if event.subject == "session-0:3":
            finished.set()

    async def on_failure(event: Event, error: Exception) -> None:
        failed.append((event.subject, str(error)))

    finished = asyncio.Event()
    events = subscriber(world, group=GROUP, from_beginning=True)
    task = asyncio.create_task(events.run(handler, retries=3, on_failure=on_failure))
    async with asyncio.timeout(PATIENCE):
        await finished.wait()
    await events.close()
    await task
    assert tries == {"session-0:1": 2, "session-0:2": 4, "session-0:3": 2}
    assert failed == [("session-0:2", "not now")]


async def test_without_a_callback_the_error_ends_the_run_before_its_event(
    world: Deployment, results: Results
) -> None:
    sent = await results.many(10, sessions=1)

    async def handler(event: Event) -> None:
        if event.subject == sent[4]:
            raise RuntimeError("for good")

    with pytest.raises(RuntimeError, match="for good"):
        await subscriber(world, group=GROUP, from_beginning=True).run(handler, retries=0)
    again = await drain(subscriber(world, group=GROUP), 6)
    assert subjects(again) == sent[4:]


async def test_a_rebalance_waits_for_the_handlers_under_way(world: Deployment, results: Results) -> None:
    sent = await results.many(30, sessions=10)
    handled: Counter[str] = Counter()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(event: Event) -> None:
        entered.set()
        await leave.wait()
        handled[event.subject or ""] += 1

    async def quick(event: Event) -> None:
        handled[event.subject or ""] += 1

    first = subscriber(world, group=GROUP, from_beginning=True)
    second = subscriber(world, group=GROUP, from_beginning=True)
    running = [asyncio.create_task(first.run(slow, concurrency=3))]
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
    consuming = beneath(first)
    finish = consuming.before_revoke
    assert finish is not None
    revoking = asyncio.Event()

    async def told() -> None:
        revoking.set()
        await finish()

    consuming.before_revoke = told
    running.append(asyncio.create_task(second.run(quick)))
    async with asyncio.timeout(PATIENCE):
        await revoking.wait()
    leave.set()
    await world.until(lambda: handled.total() >= len(sent))
    await first.close()
    await second.close()
    await asyncio.gather(*running)
    # Everything under way was finished and committed before the partitions went, so nothing came twice.
    assert handled == dict.fromkeys(sent, 1)


async def test_canceling_a_run_leaves_what_was_not_done(world: Deployment, results: Results) -> None:
    sent = await results.many(5, sessions=1)
    entered = asyncio.Event()

    async def handler(event: Event) -> None:
        if event.subject == sent[2]:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(subscriber(world, group=GROUP, from_beginning=True).run(handler))
    async with asyncio.timeout(PATIENCE):
        await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert subjects(await drain(subscriber(world, group=GROUP), 3)) == sent[2:]


async def test_a_handler_wrapped_to_handle_once_is_still_tried_again(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._FIRST_WAIT", 0.001)
    sent = await results.many(3, sessions=1)
    tries: Counter[str] = Counter()

    async def handler(event: Event) -> None:
        tries[event.subject or ""] += 1
        if tries[event.subject or ""] == 1:
            raise RuntimeError("not now")

    once = Deduplicator().once(handler)
    for _ in range(2):
        # Without a group everything comes again.
        async with subscriber(world, from_beginning=True) as events:
            task = asyncio.create_task(events.run(once))
            await world.until(lambda: sum(beneath(events)._done.values()) == 3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert tries == dict.fromkeys(sent, 2)


async def test_a_plain_function_within_once_ends_the_run_and_is_not_called_again(
    world: Deployment, results: Results
) -> None:
    await results.many(1)
    called: list[Event] = []
    once = Deduplicator().once(called.append)  # type: ignore[arg-type]
    async with subscriber(world, from_beginning=True) as events, asyncio.timeout(PATIENCE):
        with pytest.raises(TypeError, match=r"must be an async function, and .*append"):
            await events.run(once, retries=3)
    assert len(called) == 1


async def test_a_session_that_fails_does_not_hold_up_the_others(world: Deployment, results: Results) -> None:
    sent = await results.many(40, sessions=4)
    handled: Counter[str] = Counter()

    async def handler(event: Event) -> None:
        if event.session_id != "session-3":
            raise RuntimeError("not now")
        handled[event.subject or ""] += 1

    async with subscriber(world, group=GROUP, from_beginning=True) as events:
        # One slot, and three sessions that wait for their next try.
        task = asyncio.create_task(events.run(handler, concurrency=1, retries=20))
        await world.until(lambda: len(handled) == 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert handled == dict.fromkeys([each for each in sent if each.startswith("session-3:")], 1)


async def test_a_rebalance_does_not_wait_for_the_next_try(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._FIRST_WAIT", 3600.0)
    (sent,) = await results.many(1)
    tried, again = asyncio.Event(), asyncio.Event()

    async def failing(event: Event) -> None:
        tried.set()
        raise RuntimeError("not now")

    async def good(event: Event) -> None:
        assert event.subject == sent
        again.set()

    first = subscriber(world, group=GROUP, from_beginning=True)
    running = asyncio.create_task(first.run(failing))
    async with asyncio.timeout(PATIENCE):
        await tried.wait()
        await first.close()
        await running
        second = asyncio.create_task(subscriber(world, group=GROUP).run(good))
        await again.wait()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


async def test_a_slow_handler_keeps_its_partitions(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waypost.subscriber.dispatcher._BACKLOG", 5)
    monkeypatch.setattr("waypost.subscriber.dispatcher._STAY_SECONDS", 0.1)
    sent = await results.many(10, sessions=1)
    handled: list[str] = []
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(event: Event) -> None:
        entered.set()
        await leave.wait()
        handled.append(event.subject or "")

    # Longer than a busy machine keeps the loop from showing its signs of life.
    options = {"max_poll_interval_ms": 3_000, "heartbeat_interval_ms": 100}
    async with subscriber(world, group=GROUP, from_beginning=True, kafka_options=options) as events:
        task = asyncio.create_task(events.run(handler))
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
        term = beneath(events).term
        await asyncio.sleep(2.2 * 3)  # without a sign of life it is given up after half of this
        leave.set()
        await world.until(lambda: len(handled) == 10)
        assert beneath(events).term == term
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert handled == sent


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}])
async def test_a_plan_that_cannot_work_is_refused(world: Deployment, wrong: dict[str, Any]) -> None:
    async def handler(event: Event) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=next(iter(wrong))):
        await subscriber(world).run(handler, **wrong)
