"""Handlers' side of a subscriber, without Kafka: whatever comes at the same moment, a run that is told to end ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.timeouts import PATIENCE

from waypost.subscriber.dispatcher import HandlerDispatcher, HandlerOptions
from waypost.subscriber.events import Event, EventFilter


class Batch:
    """Nothing, from one partition."""

    partition, term, records = "p", 0, ()


class Flowing:
    """What hands batches on, without end."""

    before_revoke: Any = None
    term = 0

    async def batches(self) -> AsyncIterator[Batch]:
        while True:
            yield Batch()

    async def stay(self) -> None: ...


async def nothing(event: Event) -> None: ...


@pytest.mark.parametrize("turns", range(6))
async def test_a_reader_that_waits_for_room_ends_even_if_room_comes_as_it_is_canceled(turns: int) -> None:
    """``asyncio.wait_for`` of Python 3.11 loses a cancellation that comes between the end of what it waits for and
    its own; the reader went on then, and the run that waited for it never ended.
    """
    flowing: Any = Flowing()
    handling = HandlerDispatcher(flowing, EventFilter(), HandlerOptions(nothing, 1, 0, None), None)
    handling._full = lambda: True  # type: ignore[method-assign]
    reading = asyncio.create_task(handling._read())
    for _ in range(10):
        await asyncio.sleep(0)
    handling._step.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    done, _ = await asyncio.wait({reading}, timeout=2)
    reading.cancel()
    await asyncio.wait({reading}, timeout=PATIENCE)
    assert done, "the cancellation was lost"
