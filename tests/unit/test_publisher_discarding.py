"""A producer that is given up is closed, no matter what happens meanwhile."""

import asyncio
from typing import Any

import pytest

from waypost import Publisher
from waypost.kafka.batch_producer import BatchProducer


async def test_a_producer_is_closed_although_the_publisher_is_closed_in_the_meantime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    closed: list[Any] = []
    really = BatchProducer.close

    async def close(producer: BatchProducer) -> None:
        begun.set()
        await may_end.wait()
        await really(producer)
        closed.append(producer)

    monkeypatch.setattr(BatchProducer, "close", close)
    publisher = await Publisher(
        "127.0.0.1:1"
    ).start()  # nobody listens there, so its first producer is given up
    async with asyncio.timeout(30):
        await begun.wait()
        asyncio.get_running_loop().call_later(0.1, may_end.set)
        await publisher.close(0)
    assert len(closed) == 1
