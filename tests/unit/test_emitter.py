"""What an owner has committed and not yet emitted is bounded, and goes out in order with the next append."""

import asyncio
from collections.abc import Sequence

import pytest

from waypost_worker.partition.emitter import ResultEmitter
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.ownership import OwnershipProof, Position
from waypost_worker.partition.ports import FencedError, ResultRecord


class Clock:
    def boottime(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


class Topic:
    """Takes an append once it is told to."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.appends = 0
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def append(self, records: Sequence[ResultRecord]) -> int:
        self.appends += 1
        self.asked.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        base = len(self.values)
        self.values += [record.value for record in records]
        return base


def batch(*offsets: int) -> AppliedBatch:
    made = [(offset, ResultRecord(b"key", b"%d" % offset, [])) for offset in offsets]
    return AppliedBatch([], [], made, made, [], 0, 0, len(made))


@pytest.fixture
async def topic() -> Topic:
    return Topic()


@pytest.fixture
async def emission(topic: Topic) -> ResultEmitter:
    clock = Clock()
    proof = OwnershipProof(clock, 60)
    with proof.renewed():
        pass
    position = Position(1, 0, -1, 0, (-1, 0), -1)
    return ResultEmitter(topic, position, proof, lambda *_: None, clock.boottime, 2, 1000)  # type: ignore[arg-type]


async def under_way(topic: Topic) -> None:
    async with asyncio.timeout(5):
        await topic.asked.wait()


async def test_who_has_committed_too_much_waits_for_the_append_under_way(
    topic: Topic, emission: ResultEmitter
) -> None:
    emission.add(batch(0))
    await under_way(topic)
    emission.add(batch(1))
    await emission.room()
    emission.add(batch(2))
    waiting = asyncio.create_task(emission.room())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    topic.gate.set()
    await waiting
    await emission.done()
    assert topic.values == [b"0", b"1", b"2"]
    assert topic.appends == 2


async def test_bytes_that_wait_are_bounded_too(topic: Topic, emission: ResultEmitter) -> None:
    emission.add(batch(0))
    await under_way(topic)
    large = [(1, ResultRecord(b"key", b"x" * 2000, []))]
    emission.add(AppliedBatch([], [], large, large, [], 0, 0, 2000))
    waiting = asyncio.create_task(emission.room())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    topic.gate.set()
    await waiting
    await emission.done()


async def test_who_waits_for_room_hears_of_an_append_that_failed(
    topic: Topic, emission: ResultEmitter
) -> None:
    emission.add(batch(0))
    await under_way(topic)
    emission.add(batch(1, 2))
    waiting = asyncio.create_task(emission.room())
    topic.error = FencedError("somebody else is the owner")
    topic.gate.set()
    with pytest.raises(FencedError):
        await waiting
