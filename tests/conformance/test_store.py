"""What an owner may rely on in any Store: one owner at a time, its batches in order, and what it still owes."""

import asyncio
from dataclasses import replace

import pytest
from tests.conformance.stores import PARTITIONS, Hand, Stores, acquired, entry, puts

from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import AcquiredState, Fence, FencedError, RefusedError, StoredOutbox

# Acquiring.


async def test_an_unknown_partition_begins_at_the_beginning(stores: Stores) -> None:
    state = (await acquired(stores)).state
    assert (state.epoch, state.next_offset, state.anchor) == (1, 0, None)
    assert (state.emitted, state.results_offset, state.producer_id) == (-1, 0, None)
    assert (state.partitions, state.default_policy, state.default_commands) == (
        PARTITIONS,
        RetentionPolicy(),
        [],
    )
    assert list(state.outbox) == []


async def test_every_claim_raises_the_epoch_of_its_partition_alone(stores: Stores) -> None:
    assert [(await acquired(stores)).state.epoch for _ in range(3)] == [1, 2, 3]
    assert (await acquired(stores, 1)).state.epoch == 1


async def test_of_racing_claims_each_gets_its_own_epoch(stores: Stores) -> None:
    opened = [await stores.open() for _ in range(6)]
    states = await asyncio.gather(*(store.acquire(PARTITIONS) for store in opened))
    assert sorted(state.epoch for state in states) == [1, 2, 3, 4, 5, 6]


async def test_another_partition_count_is_refused_and_the_owner_stays(stores: Stores) -> None:
    hand = await acquired(stores)
    with pytest.raises(RefusedError, match=f"{PARTITIONS + 1} partitions.*created for {PARTITIONS}"):
        await (await stores.open()).acquire(PARTITIONS + 1)
    await hand.commit()
    assert (await acquired(stores)).state.epoch == 2


async def test_an_added_partition_is_refused_though_it_was_never_seen(stores: Stores) -> None:
    await acquired(stores)
    added = await stores.open(PARTITIONS)
    with pytest.raises(RefusedError, match=f"{PARTITIONS + 1} partitions.*created for {PARTITIONS}"):
        await added.acquire(PARTITIONS + 1)
    assert (await acquired(stores, 1)).state.epoch == 1


async def test_a_new_process_finds_the_position_of_the_last_batch(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit()
    hand.emit(9)
    last = await hand.commit()
    state = (await acquired(stores)).state
    assert (state.next_offset, state.anchor) == (20, last.anchor)
    assert (state.emitted, state.results_offset) == (9, 1)


async def test_the_recorded_producer_is_found_again(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.store.record_claim(1, Fence(4_000_000_000_000, 32_767))
    assert (await acquired(stores)).state.producer_id == 4_000_000_000_000


# Fences.


async def test_a_batch_of_an_older_epoch_changes_nothing(stores: Stores) -> None:
    zombie = await acquired(stores)
    await zombie.commit(puts("s", [entry(1)]))
    owner = await acquired(stores)
    with pytest.raises(FencedError):
        await zombie.commit(puts("s", [entry(2)]))
    with pytest.raises(FencedError):
        await zombie.commit()
    assert [one.number for one in (await owner.store.load(["s"]))["s"].live()] == [1]
    await owner.commit(puts("t", [entry(1)]))
    assert list(await owner.store.load(["t"])) == ["t"]


async def test_a_batch_at_another_offset_changes_nothing(stores: Stores) -> None:
    hand = await acquired(stores)
    batch = await hand.commit(puts("s", [entry(1)]))
    for expected in (0, 9, 11):
        with pytest.raises(FencedError):
            await hand.store.commit(
                replace(batch, expected_offset=expected, changes=puts("t", [entry(1)], data=b"[]"))
            )
    assert await hand.store.load(["t"]) == {}
    assert (await acquired(stores)).state.next_offset == 10


async def test_a_batch_that_is_committed_again_counts_once(stores: Stores) -> None:
    hand = await acquired(stores)
    batch = await hand.commit(puts("s", [entry(1)]))
    with pytest.raises(FencedError):
        await hand.store.commit(batch)
    await hand.commit(puts("s", [entry(2)]))
    assert len((await acquired(stores)).state.outbox) == 2


async def test_of_two_concurrent_commits_of_the_same_batch_one_counts(stores: Stores) -> None:
    hand = await acquired(stores)
    other = await stores.open()
    batch = hand.batch(puts("s", [entry(1)]))
    outcomes = await asyncio.gather(hand.store.commit(batch), other.commit(batch), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {FencedError, type(None)}
    assert len((await other.load(["s"]))["s"]) == 1


async def test_commits_that_race_with_a_claim_are_in_it_or_fenced(stores: Stores) -> None:
    store, rival = await stores.open(), await stores.open()
    for _ in range(20):
        hand = Hand(store, await store.acquire(PARTITIONS))
        before = hand.next_offset
        outcome, state = await asyncio.gather(
            hand.commit(), rival.acquire(PARTITIONS), return_exceptions=True
        )
        assert isinstance(state, AcquiredState)
        counted = not isinstance(outcome, FencedError)
        assert state.next_offset == (before + 10 if counted else before)
        assert ((before, before + 9) in [(kept[0], kept[1]) for kept in state.outbox]) is counted


async def test_only_the_owner_records_a_producer_or_saves_a_position(stores: Stores) -> None:
    zombie = await acquired(stores)
    await zombie.commit()
    await acquired(stores)
    for _ in range(
        2
    ):  # a store that was refused no longer trusts what it knew of the row, and asks in another way
        with pytest.raises(FencedError):
            await zombie.store.record_claim(1, Fence(7, 7))
        with pytest.raises(FencedError):
            await zombie.store.save_position(1, 9, 10)
    state = (await acquired(stores)).state
    assert (state.producer_id, state.emitted, len(state.outbox)) == (None, -1, 1)


async def test_partitions_do_not_touch_each_other(stores: Stores) -> None:
    here, there = await acquired(stores, 0), await acquired(stores, 1)
    await here.commit(puts("s", [entry(1)]))
    there.emit(100)
    await there.commit(puts("t", [entry(1)]))
    state = (await acquired(stores, 0)).state
    assert (state.next_offset, state.emitted) == (10, -1)
    assert [kept.payload for kept in state.outbox] == [b"owed from 0"]


async def test_an_owner_whose_epoch_came_again_saves_no_results_position(stores: Stores) -> None:
    """After a failover that lost an acquisition: what the one has emitted is none of what the other must compare."""
    first = await acquired(stores)
    await first.commit()
    twin = await stores.open()
    await twin.commit(first.batch())
    for _ in range(2):  # see above
        with pytest.raises(FencedError):
            await first.store.save_position(1, 9, 10)
    state = (await acquired(stores)).state
    assert (state.emitted, state.results_offset) == (-1, 0)


async def test_of_two_owners_with_one_epoch_only_one_records_its_producer(stores: Stores) -> None:
    """After a restore an epoch may come twice; ``first`` and ``twin`` found the same producer, that of nobody."""
    first, twin = await acquired(stores), await stores.open()
    await twin.record_claim(1, Fence(2, 0))
    for _ in range(2):  # see above
        with pytest.raises(FencedError):
            await first.store.record_claim(1, Fence(1, 0))
        with pytest.raises(FencedError):
            await first.store.save_position(1, -1, 1)
        with pytest.raises(FencedError):
            await first.commit()
    await twin.save_position(1, -1, 1)
    await twin.commit(first.batch())
    assert (await acquired(stores)).state.producer_id == 2


async def test_an_owner_commits_under_the_producer_that_it_recorded(stores: Stores) -> None:
    for epoch in (1, 2):
        hand = await acquired(stores)
        await hand.commit()
        await hand.store.record_claim(epoch, Fence(7, epoch))
        await hand.store.save_position(epoch, -1, epoch)
        await hand.commit()
    assert (await acquired(stores)).state.next_offset == 40


# The outbox and the position of results.


async def test_an_outbox_entry_stays_until_its_last_result_is_emitted(stores: Stores) -> None:
    hand = await acquired(stores)
    for emitted in (-1, 8, 9, 9, 29):
        hand.emit(emitted)
        await hand.commit()
    kept = (await acquired(stores)).state.outbox
    assert [(one.first_offset, one.last_offset) for one in kept] == [(30, 39), (40, 49)]


async def test_an_entry_of_which_only_the_last_result_is_missing_stays_whole(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit()
    hand.emit(8)
    await hand.commit()
    assert [one.first_offset for one in (await acquired(stores)).state.outbox] == [0, 10]


async def test_before_the_confirmation_every_entry_is_there_in_order(stores: Stores) -> None:
    hand = await acquired(stores)
    for offsets in (1, 300, 2):
        await hand.commit(offsets=offsets)
    hand.emit(0)
    await hand.commit()
    assert (await acquired(stores)).state.outbox == [
        StoredOutbox(1, 300, b"owed from 1"),
        StoredOutbox(301, 302, b"owed from 301"),
        StoredOutbox(303, 312, b"owed from 303"),
    ]


async def test_a_batch_whose_results_are_all_in_the_topic_leaves_no_outbox(stores: Stores) -> None:
    hand = await acquired(stores)
    hand.emit(25)
    for _ in range(3):
        await hand.commit()
    assert [one.first_offset for one in (await acquired(stores)).state.outbox] == [20]


async def test_a_saved_position_confirms_entries(stores: Stores) -> None:
    hand = await acquired(stores)
    for _ in range(3):
        await hand.commit()
    await hand.store.save_position(1, 19, 20)
    state = (await acquired(stores)).state
    assert (state.next_offset, state.emitted, state.results_offset) == (30, 19, 20)
    assert [one.first_offset for one in state.outbox] == [20]


async def test_a_saved_position_leaves_an_entry_of_which_the_last_result_is_missing(stores: Stores) -> None:
    hand = await acquired(stores)
    for _ in range(2):
        await hand.commit()
    await hand.store.save_position(1, 18, 19)
    assert [one.first_offset for one in (await acquired(stores)).state.outbox] == [10]


async def test_a_large_payload_comes_back_byte_for_byte(stores: Stores) -> None:
    hand = await acquired(stores)
    payload = bytes(range(256)) * 20_000
    await hand.store.commit(replace(hand.batch(), outbox=StoredOutbox(0, 9, payload)))
    assert (await acquired(stores)).state.outbox == [StoredOutbox(0, 9, payload)]


async def test_an_owner_that_was_overtaken_reads_nothing(stores: Stores) -> None:
    overtaken = await acquired(stores)
    await overtaken.commit(puts("s", [entry(1)]))
    assert list(await overtaken.store.load(["s"])) == ["s"]
    await acquired(stores)
    for read in (
        overtaken.store.load(["s"]),
        overtaken.store.load(["none"]),
        overtaken.store.contents([("s", 1)]),
    ):
        with pytest.raises(FencedError):
            await read


async def test_an_owner_whose_epoch_came_again_reads_no_other_position(stores: Stores) -> None:
    """After a failover that lost an acquisition two owners may have the same epoch."""
    first = await acquired(stores)
    await first.commit(puts("s", [entry(1)]))
    twin = await stores.open()
    await twin.commit(first.batch(puts("s", [entry(2)])))
    with pytest.raises(FencedError):
        await first.store.load(["s"])
    assert list(await twin.load(["s"])) == ["s"]


async def test_the_owners_that_may_have_written_results_behind_the_position_are_known(stores: Stores) -> None:
    hand = await acquired(stores)
    assert hand.state.owners is None
    await hand.store.record_claim(1, Fence(100, 0))
    assert (await acquired(stores)).state.owners is None  # what there was before is not known
    hand = await acquired(stores)
    await hand.store.save_position(hand.state.epoch, -1, 1)
    hand = await acquired(stores)
    assert hand.state.owners == {100}
    for producer_id in (100, 200, 200, 300):
        await hand.store.record_claim(hand.state.epoch, Fence(producer_id, 0))
        await hand.store.save_position(hand.state.epoch, -1, 1)  # the position that it was
    hand = await acquired(stores)
    assert hand.state.owners == {100, 200, 300}
    await hand.commit(by_owner=True)
    hand = await acquired(stores)
    assert hand.state.owners == {100, 200, 300}
    await hand.store.save_position(hand.state.epoch, -1, 7)
    hand = await acquired(stores)
    assert hand.state.owners == {300}
    await hand.commit(by_owner=False)
    assert (await acquired(stores)).state.owners is None


# Commands that an operator has skipped.


async def test_a_request_to_skip_fences_the_owner_and_reaches_the_next(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.commit()
    await hand.store.note_blocked(12)
    assert not await hand.store.is_skip_requested()
    assert await stores.request_skip(0, 12)
    assert await hand.store.is_skip_requested()
    with pytest.raises(FencedError):
        await hand.commit()
    hand = await acquired(stores)
    assert (hand.state.next_offset, hand.state.skip_offset) == (10, 12)
    await hand.commit(offsets=2)
    assert (await acquired(stores)).state.skip_offset == 12
    hand = await acquired(stores)
    await hand.commit(offsets=1)
    assert not await hand.store.is_skip_requested()
    assert (await acquired(stores)).state.skip_offset is None


async def test_only_the_command_at_which_owners_fail_can_be_asked_to_be_skipped(stores: Stores) -> None:
    assert not await stores.request_skip(0, 12)
    hand = await acquired(stores)
    await hand.commit()
    assert not await stores.request_skip(0, 12)
    await hand.store.note_blocked(12)
    assert not await stores.request_skip(0, 11)
    await hand.store.note_blocked(9)
    assert not await stores.request_skip(0, 9), "it is applied"
    assert await stores.request_skip(0, 12), "what is applied does not block"
    assert not await stores.request_skip(1, 12)


async def test_a_request_comes_too_late_once_the_command_is_applied(stores: Stores) -> None:
    hand = await acquired(stores)
    await hand.store.note_blocked(5)
    await hand.commit()
    assert not await stores.request_skip(0, 5)
    await hand.commit()
