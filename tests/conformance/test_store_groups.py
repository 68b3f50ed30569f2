"""What owners of one process may rely on when they commit at the same time: each batch counts or fails by itself."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.conformance.stores import (
    MOMENT,
    PARTITIONS,
    Hand,
    Stores,
    acquired,
    data_of,
    entry,
    facts,
    puts,
)

from waypost.model.authority import Authority
from waypost.model.index import SeenCommand, Session
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import (
    Changes,
    Commit,
    Fence,
    FencedError,
    RejectedRow,
    RejectedWindow,
    Row,
)

KEY = bytes(range(1, 33))


async def together(stores: Stores, partitions: int = PARTITIONS) -> list[Hand]:
    """A process that just acquired these partitions."""
    opened = await stores.open_together(range(partitions))
    return [Hand(store, await store.acquire(PARTITIONS)) for store in opened]


async def commit(*hands: tuple[Hand, Changes | None]) -> list[Any]:
    """Commit at the same time; None for each batch that counts, else its error."""
    outcomes = await asyncio.gather(
        *(hand.commit(changes) for hand, changes in hands), return_exceptions=True
    )
    return [None if isinstance(outcome, Commit) else outcome for outcome in outcomes]


def name(partition: int) -> str:
    return f"session of {partition}"


def seen(position: int) -> SeenCommand:
    return SeenCommand(position, f"seen-{position}", None)


def rejected(offset: int) -> RejectedRow:
    return RejectedRow(offset, "s", "id", "invalid-body", "why", b"key", b"value", [("h", b"v")], MOMENT)


def first_changes(partition: int) -> Changes:
    """Something of everything that a later batch may change."""
    changes = puts(name(partition), [entry(1), entry(2), entry(3)])
    session = Session.restore(name(partition), 3, None, [entry(1), entry(2), entry(3)], [seen(4), seen(5)])
    changes.sessions[name(partition)] = (session, MOMENT)
    changes.remembered = [(name(partition), seen(4)), (name(partition), seen(5))]
    changes.rejected = [rejected(6), rejected(7)]
    return changes


def all_changes(partition: int) -> Changes:
    """One of each kind, after the first ones."""
    session_id = name(partition)
    entries = [entry(2, pinned=True), entry(3, "again"), entry(8, pinned=True)]
    policy = RetentionPolicy(max_checkpoints=10 + partition)
    changes = Changes(
        drops={(session_id, 1): None, (session_id, 3): None},
        puts={(session_id, one.number): Row(session_id, one, data_of(80), b'{"m":1}') for one in entries[1:]},
        pins={(session_id, 2): True, (session_id, 8): True},
        remembered=[(session_id, seen(9))],
        forgotten={session_id: 5},
        rejected=[rejected(6), rejected(18)],
        rejected_window=RejectedWindow(7, ((7, 2), (partition, 1)), 3),
        rejected_below=7,
        default_policy=RetentionPolicy(max_checkpoints=20 + partition),
        partition_commands=[f"of {partition}"],
        authority=Authority(KEY, MOMENT + partition),
    )
    changes.puts[session_id, 8] = Row(session_id, entry(8), data_of(81), b"{}")
    changes.sessions[session_id] = (
        Session.restore(session_id, 8, policy, entries, [seen(5), seen(9)]),
        MOMENT + 7,
    )
    return changes


@dataclass(frozen=True)
class State:
    """All that is stored of a partition, as a new owner finds it, but for the epoch."""

    position: tuple[Any, ...]
    settings: tuple[Any, ...]
    outbox: list[Any]
    sessions: dict[str, Any]
    contents: dict[Any, Any]
    rejected: list[int]


async def state(stores: Stores, partition: int) -> State:
    hand = await acquired(stores, partition)
    claim = hand.state
    contents = await hand.store.contents([(name(partition), number) for number in range(10)])
    return State(
        (claim.next_offset, claim.anchor, claim.emitted, claim.results_offset),
        (
            claim.default_policy,
            claim.default_commands,
            claim.authority,
            claim.rejected_window,
            claim.owners,
        ),
        list(claim.outbox),
        facts(await hand.store.load([name(partition)])),
        contents,
        await stores.rejected(partition),
    )


async def test_concurrent_batches_of_several_partitions_all_count(stores: Stores) -> None:
    hands = await together(stores)
    for changes in (first_changes, all_changes):
        assert await commit(*((hand, changes(at)) for at, hand in enumerate(hands))) == [None] * PARTITIONS
    for partition in range(PARTITIONS):
        found = await state(stores, partition)
        assert found.position == (20, b"anchor of 19", -1, 0)
        assert found.settings[:2] == (RetentionPolicy(max_checkpoints=20 + partition), [f"of {partition}"])
        assert found.settings[2] == Authority(KEY, MOMENT + partition)
        assert found.settings[3] == RejectedWindow(7, ((7, 2), (partition, 1)), 3)
        assert [one.payload for one in found.outbox] == [b"owed from 0", b"owed from 10"]
        session, _ = all_changes(partition).sessions[name(partition)]
        assert found.sessions == facts({name(partition): session})
        assert found.contents == {
            (name(partition), 2): (data_of(2), b"{}"),
            (name(partition), 3): (data_of(80), b'{"m":1}'),
            (name(partition), 8): (data_of(81), b"{}"),
        }
        assert found.rejected == [7, 18]


@pytest.mark.parametrize("fenced", [{0}, {1, 3}, {2}, {0, 1, 2}, {0, 1, 2, 3}])
async def test_a_fenced_batch_changes_nothing_and_the_others_count(stores: Stores, fenced: set[int]) -> None:
    hands = await together(stores)
    assert await commit(*((hand, first_changes(at)) for at, hand in enumerate(hands))) == [None] * PARTITIONS
    before = {partition: await state(stores, partition) for partition in fenced}
    for again in (False, True):  # a store that was refused no longer trusts what it knew of the row
        group = [None if again and at not in fenced else all_changes(at) for at in range(PARTITIONS)]
        outcomes = await commit(*zip(hands, group, strict=True))
        assert {at for at, outcome in enumerate(outcomes) if isinstance(outcome, FencedError)} == fenced
        assert {at for at, outcome in enumerate(outcomes) if outcome is None} == set(
            range(PARTITIONS)
        ) - fenced
    for partition in range(PARTITIONS):
        found = await state(stores, partition)
        if partition in fenced:
            assert found == before[partition]
        else:
            assert found.position[0] == 30
            assert list(found.contents) == [(name(partition), number) for number in (2, 3, 8)]


async def test_a_batch_at_another_offset_or_producer_changes_nothing_in_a_group(stores: Stores) -> None:
    hands = await together(stores)
    twins = await stores.open_together(range(2))
    await twins[0].commit(hands[0].batch())
    await twins[1].record_claim(1, Fence(2, 0))
    for again in (False, True):  # see above
        group = [None if again and at > 1 else first_changes(at) for at in range(PARTITIONS)]
        outcomes = await commit(*zip(hands, group, strict=True))
        assert [type(outcome) for outcome in outcomes] == [FencedError, FencedError, type(None), type(None)]
    assert [(await state(stores, partition)).contents == {} for partition in range(4)] == [
        True,
        True,
        False,
        False,
    ]


async def test_each_owner_commits_on_where_its_group_left_its_own_partition(stores: Stores) -> None:
    hands = await together(stores)
    groups = [(0, 1, 2, 3), (3, 1), (2,), (1, 0, 2), (3,), (2, 3), (0,), (3, 2, 1, 0)]
    for group in groups:
        assert await commit(*((hands[at], None) for at in group)) == [None] * len(group)
    for partition, hand in enumerate(hands):
        hand.emit(hand.next_offset - 1)
        assert await commit((hand, None)) == [None]
        await hand.store.save_position(1, hand.next_offset - 1, 7)
        claim = (await acquired(stores, partition)).state
        assert claim.next_offset == 10 * (1 + sum(partition in group for group in groups))
        assert list(claim.outbox) == []


async def test_confirmed_entries_of_each_partition_are_dropped_in_a_group(stores: Stores) -> None:
    hands = await together(stores)
    for at, hand in enumerate(hands):
        for _ in range(3):
            await hand.commit()
        hand.emit(10 * at - 1)
    assert await commit(*((hand, None) for hand in hands)) == [None] * PARTITIONS
    for at in range(PARTITIONS):
        kept = (await acquired(stores, at)).state.outbox
        assert [one.first_offset for one in kept] == list(range(10 * at, 40, 10))


async def test_a_batch_whose_results_are_all_in_the_topic_leaves_no_outbox_in_a_group(stores: Stores) -> None:
    hands = await together(stores)
    hands[1].emit(25)
    for _ in range(3):
        assert await commit(*((hand, None) for hand in hands)) == [None] * PARTITIONS
    outbox = [(await acquired(stores, at)).state.outbox for at in range(PARTITIONS)]
    assert [[one.first_offset for one in kept] for kept in outbox] == [
        [0, 10, 20],
        [20],
        [0, 10, 20],
        [0, 10, 20],
    ]


async def test_of_two_batches_of_one_partition_in_a_group_only_one_counts(stores: Stores) -> None:
    opened = await stores.open_together([0, 1, 0])
    claims = [await store.acquire(PARTITIONS) for store in opened[1:]]
    other, owner = [Hand(store, claim) for store, claim in zip(opened[1:], claims, strict=True)]
    twin = Hand(opened[0], owner.state)
    outcomes = await commit((owner, None), (other, None), (twin, None))
    assert {type(outcomes[0]), type(outcomes[2])} == {FencedError, type(None)}
    assert outcomes[1] is None
    assert len((await acquired(stores)).state.outbox) == 1


async def test_groups_that_race_with_claims_are_in_them_or_fenced(stores: Stores) -> None:
    for _ in range(10):
        hands = await together(stores)
        before = [hand.next_offset for hand in hands]
        rivals = await stores.open_together(range(PARTITIONS))
        outcomes, *claims = await asyncio.gather(
            commit(*((hand, None) for hand in hands)), *(rival.acquire(PARTITIONS) for rival in rivals)
        )
        for at, (outcome, claim) in enumerate(zip(outcomes, claims, strict=True)):
            assert outcome is None or isinstance(outcome, FencedError)
            assert claim.next_offset == before[at] + (10 if outcome is None else 0)
            assert ((before[at], before[at] + 9) in [(one[0], one[1]) for one in claim.outbox]) is (
                outcome is None
            )


async def test_groups_of_two_processes_with_the_same_partitions_count_each_batch_once(stores: Stores) -> None:
    first = await together(stores)
    twins = [
        Hand(store, hand.state)
        for store, hand in zip(await stores.open_together(range(4)), first, strict=True)
    ]
    outcomes = await asyncio.gather(
        commit(*((hand, None) for hand in first)), commit(*((hand, None) for hand in reversed(twins)))
    )
    ours, theirs = outcomes[0], outcomes[1][::-1]
    for one, other in zip(ours, theirs, strict=True):
        assert {type(one), type(other)} == {FencedError, type(None)}


async def test_a_caller_that_gives_up_does_not_stop_the_others(stores: Stores) -> None:
    hands = await together(stores)
    tasks = [asyncio.create_task(hand.commit()) for hand in hands]
    await asyncio.sleep(0)
    tasks[1].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, Commit) for outcome in outcomes] == [True, False, True, True]
    offsets = [(await acquired(stores, at)).state.next_offset for at in range(PARTITIONS)]
    assert offsets[0] == offsets[2] == offsets[3] == 10
