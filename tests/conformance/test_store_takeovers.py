"""What owners of one process may rely on when they take partitions over at the same time: each has an outcome of its
own.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

import pytest
from tests.conformance.stores import PARTITIONS, Hand, Stores, acquired

from waypost_worker.partition.ports import AcquiredState, Fence, FencedError, RefusedError


async def outcomes(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Make calls at the same time; what each returns or raises."""
    return await asyncio.gather(*calls, return_exceptions=True)


async def takeover(stores: Stores, partitions: int = PARTITIONS) -> list[Hand]:
    """A process that acquires these partitions at the same time."""
    opened = await stores.open_together(range(partitions))
    states = await asyncio.gather(*(store.acquire(PARTITIONS) for store in opened))
    return [Hand(store, state) for store, state in zip(opened, states, strict=True)]


async def different(stores: Stores) -> list[Hand]:
    """Owners of partitions that differ in everything that an heir reads; partition 0 has never been seen."""
    hands = [await acquired(stores, partition) for partition in range(1, PARTITIONS)]
    for hand, partition in zip(hands, range(1, PARTITIONS), strict=True):
        await hand.store.record_claim(1, Fence(10 * partition, partition))
        for _ in range(partition):
            await hand.commit(offsets=partition)
        hand.emit(partition - 1)
        await hand.commit(offsets=1)
    return hands


def position(state: AcquiredState) -> tuple[Any, ...]:
    return state.next_offset, state.anchor, state.emitted, state.results_offset, state.producer_id


async def test_each_gets_the_claim_of_its_own_partition(stores: Stores) -> None:
    await different(stores)
    states = [hand.state for hand in await takeover(stores)]
    assert [state.epoch for state in states] == [1, 2, 2, 2]
    assert [position(state) for state in states] == [
        (0, None, -1, 0, None),
        (2, b"anchor of 1", 0, 1, 10),
        (5, b"anchor of 4", 1, 1, 20),
        (10, b"anchor of 9", 2, 1, 30),
    ]
    assert [[(one.first_offset, one.payload) for one in state.outbox] for state in states] == [
        [],
        [(1, b"owed from 1")],
        [(2, b"owed from 2"), (4, b"owed from 4")],
        [(3, b"owed from 3"), (6, b"owed from 6"), (9, b"owed from 9")],
    ]


async def test_former_owners_of_all_partitions_are_fenced(stores: Stores) -> None:
    former = await different(stores)
    heirs = await takeover(stores)
    found = await outcomes(hand.commit() for hand in former)
    assert [type(outcome) for outcome in found] == [FencedError] * len(former)
    for hand in heirs:
        await hand.commit()


async def test_one_that_is_refused_changes_nothing_and_takes_nobody_along(stores: Stores) -> None:
    owner = (await takeover(stores))[1]
    opened = await stores.open_together(range(PARTITIONS))
    found = await outcomes(
        store.acquire(PARTITIONS + (partition == 1)) for partition, store in enumerate(opened)
    )
    refused = found.pop(1)
    assert isinstance(refused, RefusedError)
    assert f"{PARTITIONS + 1} partitions" in str(refused)
    assert [state.epoch for state in found] == [2, 2, 2]
    await owner.commit()


async def test_of_two_owners_of_one_partition_each_gets_its_own_epoch(stores: Stores) -> None:
    opened = await stores.open_together([0, 1, 0])
    states = await asyncio.gather(*(store.acquire(PARTITIONS) for store in opened))
    assert sorted([states[0].epoch, states[2].epoch]) == [1, 2]
    assert states[1].epoch == 1


async def test_processes_that_meet_partitions_for_the_first_time_do_not_hold_each_other_up(
    stores: Stores,
) -> None:
    forward, backward = [await stores.open_together(range(PARTITIONS)) for _ in range(2)]
    states = await asyncio.gather(*(store.acquire(PARTITIONS) for store in [*forward, *reversed(backward)]))
    for partition in range(PARTITIONS):
        epochs = states[partition].epoch, states[-1 - partition].epoch
        assert sorted(epochs) == [1, 2]


@pytest.mark.parametrize("fenced", [{0}, {1, 3}, {0, 1, 2, 3}])
async def test_producers_are_recorded_for_those_that_are_still_owners(
    stores: Stores, fenced: set[int]
) -> None:
    hands = await takeover(stores)
    for partition in fenced:
        await acquired(stores, partition)
    found = await outcomes(
        hand.store.record_claim(1, Fence(70 + at, 7 * at)) for at, hand in enumerate(hands)
    )
    assert {at for at, outcome in enumerate(found) if isinstance(outcome, FencedError)} == fenced
    assert {at for at, outcome in enumerate(found) if outcome is None} == set(range(PARTITIONS)) - fenced
    states = [hand.state for hand in await takeover(stores)]
    assert [state.producer_id for state in states] == [
        None if at in fenced else 70 + at for at in range(PARTITIONS)
    ]


async def test_of_two_owners_of_one_partition_only_one_records_its_producer(stores: Stores) -> None:
    opened = await stores.open_together([0, 1, 0])
    for store in opened[1:]:
        await store.acquire(PARTITIONS)
    found = await outcomes(store.record_claim(1, Fence(at, 0)) for at, store in enumerate(opened))
    assert {type(found[0]), type(found[2])} == {FencedError, type(None)}
    assert found[1] is None


@pytest.mark.parametrize("fenced", [{0}, {1, 3}, {0, 1, 2, 3}])
async def test_positions_are_saved_for_those_that_are_still_owners(stores: Stores, fenced: set[int]) -> None:
    hands = await takeover(stores)
    for hand in hands:
        await hand.commit()
        await hand.commit()
    for partition in fenced:
        await acquired(stores, partition)
    found = await outcomes(
        hand.store.save_position(1, 9 if at % 2 else 19, 5 + at) for at, hand in enumerate(hands)
    )
    assert {at for at, outcome in enumerate(found) if isinstance(outcome, FencedError)} == fenced
    assert {at for at, outcome in enumerate(found) if outcome is None} == set(range(PARTITIONS)) - fenced
    for at, hand in enumerate(await takeover(stores)):
        state = hand.state
        if at in fenced:
            assert (state.emitted, state.results_offset, len(state.outbox)) == (-1, 0, 2)
        else:
            assert (state.emitted, state.results_offset) == (9 if at % 2 else 19, 5 + at)
            assert [one.first_offset for one in state.outbox] == ([10] if at % 2 else [])


async def test_after_all_that_each_owner_continues_in_its_own_partition(stores: Stores) -> None:
    hands = await takeover(stores)
    await asyncio.gather(*(hand.store.record_claim(1, Fence(at, at)) for at, hand in enumerate(hands)))
    await asyncio.gather(*(hand.store.save_position(1, -1, at) for at, hand in enumerate(hands)))
    for at, hand in enumerate(hands):
        hand.results_offset = at
        await hand.commit(offsets=at + 1)
    states = [hand.state for hand in await takeover(stores)]
    assert [(state.next_offset, state.results_offset, state.producer_id) for state in states] == [
        (at + 1, at, at) for at in range(PARTITIONS)
    ]
