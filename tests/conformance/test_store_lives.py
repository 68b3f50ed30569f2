"""A session that is stored and loaded again after every batch lives the same life as one that stays in memory.

Both are folded with the owner's own code; where the log is cut into batches must change neither the results nor
what the session is in the end, its memory of command ids included.
"""

import itertools
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conformance.stores import MOMENT, PARTITIONS, Hand, Stores, facts
from tests.properties.generate import SESSION, lives_with_defaults, long_lives

from waypost.model.commands import Command
from waypost.model.index import Session
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import Envelope
from waypost_worker.partition.batch import Batch, Decoded
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ports import Changes, ResultRecord, Store

ENCODER = ResultEncoder("results", 0)
examples = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
few_examples = settings(examples, max_examples=3)
sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)
_partitions = itertools.count()


@dataclass(frozen=True)
class Record:
    """A command's record. What it says is in the command already, so only refusals look at it."""

    offset: int
    timestamp: int = 0
    key: bytes | None = SESSION.encode()
    value: bytes | None = b"{}"
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def folded(batch: Batch, commands: list[Command]) -> Batch:
    for at in commands:
        # The model knows commands without an id, though no envelope lacks one.
        command_id: str = at.id  # type: ignore[assignment]
        envelope = Envelope(command_id, "type", SESSION, at.taken_at, at.recorded_at, None, b"{}")
        batch.add(Decoded(Record(at.position), envelope, at.action, None, SESSION))
    return batch


def blank() -> Session:
    """As every life begins: with one command, which changed nothing, at a time that no life reaches."""
    return Session.restore(SESSION, 0, None, [], [], MOMENT)


def in_memory(commands: list[Command]) -> tuple[Session, list[ResultRecord]]:
    """All in one batch, over a session that never leaves memory."""
    sessions = {SESSION: blank()}
    results, _ = folded(Batch(ENCODER, sessions, PartitionState()), commands).finish({})
    return sessions[SESSION], [record for _, record in results]


async def in_store(
    store: Store, commands: list[Command], sizes: list[int]
) -> tuple[Session, list[ResultRecord]]:
    """In batches of these sizes, round and round; all memory is dropped after each."""
    made: list[ResultRecord] = []
    turns = itertools.cycle(sizes)
    while commands:
        size = next(turns)
        part, commands = commands[:size], commands[size:]
        hand = Hand(store, await store.acquire(PARTITIONS))
        sessions = await store.load([SESSION])
        batch = folded(Batch(ENCODER, sessions, hand.state.state()), part)
        results, _ = batch.finish(await store.contents(batch.wanted()))
        made += [record for _, record in results]
        await hand.commit(batch.changes)
    return (await store.load([SESSION]))[SESSION], made


async def emptied(stores: Stores) -> Store:
    """A store of a partition that nobody used, in which the session is blank."""
    store = await stores.open(next(_partitions))
    hand = Hand(store, await store.acquire(PARTITIONS))
    stored = await store.load([SESSION])
    entries = stored[SESSION].live() if stored else []
    drops = dict.fromkeys((SESSION, entry.number) for entry in entries)
    nothing = {SESSION: (blank(), MOMENT)}
    await hand.commit(Changes(drops=drops, sessions=nothing, forgotten={SESSION: 2**62}))
    return store


async def check(stores: Stores, commands: list[Command], sizes: list[int]) -> None:
    expected, expected_results = in_memory(commands)
    session, results = await in_store(await emptied(stores), commands, sizes)
    assert results == expected_results
    assert facts({SESSION: session}) == facts({SESSION: expected})
    assert session.last_recorded_at == expected.last_recorded_at


@examples
@given(lives_with_defaults, sizes)
async def test_any_life_is_the_same_in_any_batches(
    stores: Stores, commands: list[Command], sizes: list[int]
) -> None:
    await check(stores, commands, sizes)


@few_examples
@given(long_lives, st.lists(st.integers(50, 400), min_size=1, max_size=3))
async def test_a_life_long_enough_to_forget_is_the_same_in_any_batches(
    stores: Stores, commands: list[Command], sizes: list[int]
) -> None:
    await check(stores, commands, sizes)
