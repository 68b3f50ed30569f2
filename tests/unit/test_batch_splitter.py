"""A fetch's records come out decoded in batches that are bounded by bytes, whatever the pieces they are decoded in."""

import asyncio
from dataclasses import dataclass, field
from itertools import zip_longest
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Decoded, decode
from waypost_worker.partition.batching import BatchSplitter

_ROLLBACK = b'{"checkpoint_id": "session:1"}'


@dataclass
class Record:
    offset: int
    value: bytes | None
    kind: str
    key: bytes | None = b"session"
    timestamp: int = 1_800_000_000_000
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.headers = command_headers(f"c{self.offset}", b"/t", self.kind.encode(), b"2026-11-24T08:24:59Z")


def weight(one: Decoded) -> int:
    return len(one.record.value or b"") + 200


values = st.one_of(
    st.none(),
    st.just(_ROLLBACK),
    st.integers(0, 3_000).map(lambda size: b'{"name":"n","data":{}}' + b" " * size),
    st.integers(0, 600_000).map(lambda size: b'{"name":"n","data":{}}' + b" " * size),
)


def records_of(bodies: list[bytes | None]) -> list[Record]:
    return [
        Record(offset, body, EventType.ROLLBACK if body == _ROLLBACK else EventType.CREATE)
        for offset, body in enumerate(bodies)
    ]


@settings(deadline=None)
@given(
    st.lists(values, max_size=300),
    st.sampled_from([1, 300, 5_000, 60_000, 1_200_000, 4_000_000]),
    st.randoms(use_true_random=False),
)
async def test_batches_hold_all_records_once_in_order_and_as_many_as_fit(
    made: list[bytes | None], most_bytes: int, chance: Random
) -> None:
    records = records_of(made)
    pieces = BatchSplitter(records, 0, 1, most_bytes)
    batches: list[list[Decoded]] = []
    put_back = 0
    while pieces:
        taken = [piece async for piece in pieces.batch()]
        assert all(taken), "a piece without records"
        batch = [one for piece in taken for one in piece]
        # Whoever folds them may end a batch before that; something is always taken.
        if put_back < 20 and chance.random() < 0.2:
            kept = chance.randint(1, len(batch))
            pieces.put_back(batch[kept:])
            put_back += 1
            batch = batch[:kept]
        batches.append(batch)
    assert [one for batch in batches for one in batch] == [decode(record, 0, 1) for record in records]
    for batch, following in zip_longest(batches, batches[1:], fillvalue=[]):
        total = sum(map(weight, batch))
        assert total <= most_bytes or len(batch) == 1
        if following and not put_back:
            assert total + weight(following[0]) > most_bytes, "one more would have fitted"


async def test_small_bodies_share_a_piece_and_a_large_one_is_alone_in_its_own() -> None:
    small, large = b'{"name":"n","data":{}}', b'{"name":"n","data":{"a":"' + b"x" * 300_000 + b'"}}'
    pieces = BatchSplitter(records_of([small] * 3 + [large] * 2 + [small] * 70), 0, 1, 10_000_000)
    assert [len(piece) async for piece in pieces.batch()] == [3, 1, 1, 64, 6]


async def test_the_event_loop_gets_a_turn_while_large_bodies_are_decoded() -> None:
    body = b'{"name":"n","data":{"a":[' + b",".join([b"[]"] * 250_000) + b"]}}"
    pieces = BatchSplitter(records_of([body] * 4), 0, 1, 10_000_000)
    turns = 0
    done = asyncio.Event()

    async def count() -> None:
        nonlocal turns
        while not done.is_set():
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    taken = [piece async for piece in pieces.batch()]
    done.set()
    await counting
    assert len(taken) == 4
    assert turns > 10  # a thread decoded them beside it


async def test_the_event_loop_gets_a_turn_between_small_bodies() -> None:
    body = b'{"name":"n","data":{"a":"' + b"x" * 1_000 + b'"}}'
    pieces = BatchSplitter(records_of([body] * 3_000), 0, 1, 10_000_000)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while pieces:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async for _ in pieces.batch():
        pass
    await counting
    assert turns >= 10  # of 3.6 MB
