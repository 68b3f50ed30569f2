"""What an owner has committed and not yet emitted is bounded, and goes out in order with the next append."""

import asyncio
from collections.abc import Sequence

import pytest

from waypost_worker.partition.emitter import ResultEmitter, emit
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.ownership import OwnershipProof, Position
from waypost_worker.partition.ports import FencedError, ForeignWriterError, RenewalDueError, ResultRecord

FENCE = ResultRecord(None, b"fence", [])


class Clock:
    now = wall = 0.0

    def boottime(self) -> float:
        return self.now

    def walltime(self) -> float:
        return self.wall

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


def lapsed(proof: OwnershipProof) -> None:
    """Prove the ownership after too long a time without proof."""
    with proof.renewed():
        pass


def proved(proof: OwnershipProof) -> None:
    """Prove the ownership, and fence the topic."""
    lapsed(proof)
    with proof.fencing():
        pass


@pytest.fixture
async def topic() -> Topic:
    return Topic()


@pytest.fixture
async def emission(topic: Topic) -> ResultEmitter:
    clock = Clock()
    proof = OwnershipProof(clock, 60)
    proved(proof)
    position = Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
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


async def test_waiting_for_room_raises_the_error_of_an_append_that_failed(
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


async def test_after_a_lapse_the_fence_record_comes_first_and_once(topic: Topic) -> None:
    clock, made = Clock(), [(0, ResultRecord(b"key", b"0", []))]
    proof, position = OwnershipProof(clock, 60), Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
    topic.gate.set()
    proved(proof)
    clock.now = 61
    lapsed(proof)
    await emit(topic, made, position, proof)  # type: ignore[arg-type]
    await emit(topic, made, position, proof)  # type: ignore[arg-type]
    assert topic.values == [b"fence", b"0", b"0"]
    assert position.results_offset == 3


async def test_after_a_lapse_nothing_follows_a_fence_record_that_landed_elsewhere(topic: Topic) -> None:
    clock = Clock()
    proof, position = OwnershipProof(clock, 60), Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
    topic.gate.set()
    topic.values = [b"of an heir"]
    lapsed(proof)
    for _ in range(2):
        with pytest.raises(ForeignWriterError):
            await emit(topic, [(0, ResultRecord(b"key", b"0", []))], position, proof)  # type: ignore[arg-type]
    assert b"0" not in topic.values


async def test_a_lapse_while_the_fence_record_is_under_way_needs_another_one(topic: Topic) -> None:
    clock = Clock()
    proof, position = OwnershipProof(clock, 60), Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
    lapsed(proof)
    emitting = asyncio.create_task(emit(topic, [(0, ResultRecord(b"key", b"0", []))], position, proof))  # type: ignore[arg-type]
    await under_way(topic)
    clock.now = 61
    lapsed(proof)
    topic.gate.set()
    await emitting
    assert topic.values == [b"fence", b"fence", b"0"]


async def test_a_pause_that_only_the_wall_clock_counts_makes_a_proof_too_old(topic: Topic) -> None:
    """A hypervisor stopped the machine, and its clocks; afterwards the wall clock was set right."""
    clock = Clock()
    proof, position = OwnershipProof(clock, 60), Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
    topic.gate.set()
    proved(proof)
    clock.wall = 61
    with pytest.raises(RenewalDueError, match="61 s ago"):
        await emit(topic, [(0, ResultRecord(b"key", b"0", []))], position, proof)  # type: ignore[arg-type]
    assert topic.values == []


async def test_a_wall_clock_that_is_set_back_makes_no_proof_younger(topic: Topic) -> None:
    clock = Clock()
    proof, position = OwnershipProof(clock, 60), Position(1, 0, -1, 0, (-1, 0), -1, FENCE)
    topic.gate.set()
    proved(proof)
    clock.now, clock.wall = 61, -3600
    with pytest.raises(RenewalDueError):
        await emit(topic, [(0, ResultRecord(b"key", b"0", []))], position, proof)  # type: ignore[arg-type]
