"""Members of a group that come, leave, fail and vanish at random: every event, and the first time in order.

WAYPOST_CHAOS_SEED repeats a run's choices. On a busy machine, where a step can take half a minute, a run takes fewer
steps. WAYPOST_CHAOS_STEPS sets their number, however long they take.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.integration.subscribing import (
    GROUP,
    PARTITIONS,
    Results,
    beneath,
    by_session,
    committed,
    subjects,
    subscriber,
)
from tests.support.deployment import Deployment, deployment

from waypost import Event, Subscriber
from waypost_worker.devserver import Servers

SEED = int(os.environ.get("WAYPOST_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
STEPS = 15
ASKED_FOR = os.environ.get("WAYPOST_CHAOS_STEPS")
# No step begins after this time. The rest of the test may take another three times PATIENCE, and a test has 300 s.
SECONDS = 45
MOST_MEMBERS = 4
# The partitions of a member that vanished belong to nobody until its session expires.
OPTIONS = {"session_timeout_ms": 3000, "heartbeat_interval_ms": 300}


def steps() -> Iterator[None]:
    """Yield once for each step of a run."""
    began = time.monotonic()
    for _ in range(int(ASKED_FOR or STEPS)):
        yield
        if ASKED_FOR is None and time.monotonic() - began > SECONDS:
            return


@pytest.fixture
async def world(servers: Servers, untouched_database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, untouched_database, topic_prefix, PARTITIONS) as made:
        yield made


class Member:
    """One subscriber and the task that takes its events, by a handler that often fails or by iteration."""

    def __init__(self, world: Deployment, found: list[Event], chance: random.Random) -> None:
        self._found = found
        self._chance = chance
        self.events: Subscriber = subscriber(
            world, group=GROUP, from_beginning=True, stuck_after=0.5, kafka_options=OPTIONS
        )
        self.task = asyncio.create_task(self._run() if chance.random() < 0.7 else self._iterate())

    async def _run(self) -> None:
        await self.events.run(self._handle, concurrency=self._chance.choice((1, 4)), retries=1000)

    async def _handle(self, event: Event) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 0.001)))
        if self._chance.random() < 0.05:
            raise RuntimeError("not now")
        self._found.append(event)

    async def _iterate(self) -> None:
        async for event in self.events:
            self._found.append(event)
            await asyncio.sleep(0)

    async def leave(self) -> None:
        await self.events.close()
        await asyncio.gather(self.task, return_exceptions=True)

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.events.close()

    async def vanish(self) -> None:
        """Without a last commit and without a farewell: the group finds out by itself."""
        consuming = self.events._consuming
        if consuming is not None:

            async def nothing() -> None:
                return

            consuming.commit = nothing  # type: ignore[method-assign]
            if consuming._member is not None:
                consuming._member.leave = nothing  # type: ignore[method-assign]
        await self.cancel()

    async def get_stuck(self) -> None:
        """The watchdog mends this one."""
        for task in beneath(self.events)._reader._tasks:
            task.cancel()


async def test_members_come_and_go_at_random(
    world: Deployment, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"WAYPOST_CHAOS_SEED={SEED}")
    monkeypatch.setattr("waypost.subscriber.dispatcher._FIRST_WAIT", 0.001)
    chance = random.Random(SEED)
    found: list[Event] = []
    sent: list[str] = []
    members = [Member(world, found, chance)]
    made = 0
    for _ in steps():
        made += 1
        sent += await results.many(40)
        seen = len(found)
        await world.until(lambda seen=seen: len(found) > seen)
        step = chance.choice(("join", "join", "leave", "cancel", "vanish", "get_stuck"))
        if step == "join" and len(members) < MOST_MEMBERS:
            members.append(Member(world, found, chance))
        elif step == "get_stuck":
            if members[0].events._consuming is not None:
                await members[0].get_stuck()
        elif step != "join" and len(members) > 1:
            await getattr(members.pop(chance.randrange(len(members))), step)()
    await world.until(lambda: set(subjects(found)) == set(sent))

    async def all_is_committed() -> bool:
        return sum(offset or 0 for offset in (await committed(world)).values()) == len(sent)

    # Who vanished may have taken the last events and committed none: others get its partitions once the group noticed.
    await world.until(all_is_committed)
    for member in members:
        await member.leave()
    assert by_session(list(dict.fromkeys(subjects(found)))) == by_session(sent)
    assert await all_is_committed()
    print(f"{made} steps, {len(found)} taken of {len(sent)} sent: {len(found) - len(sent)} repetitions")


@pytest.fixture
def results(world: Deployment) -> Results:
    return Results(world)
