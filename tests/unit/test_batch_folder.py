"""What one batch needs and makes is bounded, however little its commands weigh, and where it ends changes nothing."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from waypost.model.index import Entry, Session
from waypost.model.partition_state import PartitionState
from waypost.model.retention import RetentionPolicy
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.partition.batch import Decoded, decode
from waypost_worker.partition.batching import BatchSplitter
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.fold import BatchFolder, FoldResult
from waypost_worker.partition.ports import Changes, RejectedWindow, ResultRecord

MB = 1024 * 1024
NO_LIMIT = 1024 * MB
FULL = RetentionPolicy(10_000, 10_000, 20)
LARGEST = b'{"a":"' + b"x" * (900 * 1024 - 8) + b'"}'


@dataclass
class Record:
    offset: int
    key: bytes
    kind: EventType
    value: bytes
    timestamp: int = 1_800_000_000_000
    headers: list[tuple[str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.headers = command_headers(f"c{self.offset}", b"/t", self.kind.wire, b"2026-11-24T08:24:59Z")


class Stored:
    """Sessions as a store has them: names with how many checkpoints each has, all with the same data."""

    def __init__(self, sizes: dict[str, int], data: bytes = LARGEST) -> None:
        self._sizes = sizes
        self._data = data
        self.loaded: list[int] = []  # checkpoints of each call
        self.asked: list[int] = []
        self.returned = 0  # bytes of data

    async def sizes(self, session_ids: Sequence[str]) -> dict[str, int]:
        self.asked.append(len(session_ids))
        return {name: self._sizes[name] for name in session_ids if name in self._sizes}

    async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
        found = {}
        for name in session_ids:
            if name in self._sizes:
                numbers = range(1, self._sizes[name] + 1)
                live = [Entry(n, "n", 0, 0, -n, f"made-{n}") for n in numbers]
                found[name] = Session.restore(name, len(live), FULL, live, [])
        self.loaded.append(sum(map(len, found.values())))
        return found

    async def contents(self, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[bytes, bytes]]:
        found = dict.fromkeys(keys, (self._data, b"{}"))
        self.returned = max(self.returned, len(found) * len(self._data))
        return found


async def folded(store: Stored, records: Sequence[Record]) -> list[FoldResult]:
    """All batches of these records."""
    folder = BatchFolder(
        ResultEncoder("results", 0), store, PartitionState(), RejectedWindow(), lambda: 10**9
    )
    pieces = BatchSplitter(records, 0, 1, NO_LIMIT)
    batches = []
    while pieces:
        batches.append(await folder.fold(pieces, 0))
        folder.settle()
    return batches


def result_bytes(batch: FoldResult) -> int:
    return sum(len(record.value) for _, record in batch.results)


async def test_rollbacks_of_64_kb_that_would_answer_with_270_mb_are_many_batches() -> None:
    rollbacks = [Record(n, b"s", EventType.ROLLBACK, b'{"checkpoint_id":"s:1"}') for n in range(300)]
    store = Stored({"s": 1})
    batches = await folded(store, rollbacks)
    assert sum(len(batch.commands) for batch in batches) == 300
    assert sum(map(result_bytes, batches)) > 270 * 1_000_000
    assert max(map(result_bytes, batches)) < 9 * MB
    assert store.returned < 9 * MB


async def test_long_lists_of_what_is_removed_end_a_batch_too() -> None:
    names = [f"session-{n}-" + "x" * 60 for n in range(20)]
    clears = [Record(n, name.encode(), EventType.CLEAR, b"{}") for n, name in enumerate(names)]
    batches = await folded(Stored(dict.fromkeys(names, 9_000)), clears)
    assert sum(map(result_bytes, batches)) > 12 * MB
    assert max(map(result_bytes, batches)) < 9 * MB


async def test_creates_under_a_lowered_default_end_a_batch_too() -> None:
    names = [f"session-{n}-" + "x" * 60 for n in range(20)]

    class Unbound(Stored):
        async def load(self, session_ids: Sequence[str]) -> dict[str, Session]:
            found = await super().load(session_ids)
            for session in found.values():
                session.policy = RetentionPolicy(2)
            return found

    creates = [
        Record(n, name.encode(), EventType.CREATE, b'{"name":"n","data":{}}') for n, name in enumerate(names)
    ]
    batches = await folded(Unbound(dict.fromkeys(names, 9_000)), creates)
    assert sum(map(result_bytes, batches)) > 12 * MB
    assert max(map(result_bytes, batches)) < 9 * MB


async def test_sessions_that_one_batch_loads_are_bounded_together() -> None:
    names = [f"s-{n}" for n in range(60)]
    pins = [
        Record(n, name.encode(), EventType.PIN, f'{{"checkpoint_id":"{name}:1"}}'.encode())
        for n, name in enumerate(names)
    ]
    store = Stored(dict.fromkeys(names, 9_000))
    batches = await folded(store, pins)
    assert [one.record.offset for batch in batches for one in batch.commands] == list(range(60))
    assert sum(store.loaded) == 60 * 9_000
    assert max(store.loaded) <= 100_000
    assert len(batches) == len(store.loaded) == 6


async def test_few_or_small_sessions_are_loaded_together_and_few_without_a_look_at_their_sizes() -> None:
    names = [f"s-{n}" for n in range(1_000)]
    creates = [
        Record(n, name.encode(), EventType.CREATE, b'{"name":"n","data":{}}') for n, name in enumerate(names)
    ]
    store = Stored(dict.fromkeys(names, 20))
    assert len(await folded(store, creates)) == 1
    assert (store.asked, store.loaded) == ([1_000], [20_000])
    store = Stored({"s-0": 10_000})
    assert len(await folded(store, creates[:9])) == 1
    assert (store.asked, store.loaded) == ([], [10_000])


async def test_one_session_is_loaded_however_large_it_is() -> None:
    names = [f"s-{n}" for n in range(20)]
    pins = [
        Record(n, name.encode(), EventType.PIN, f'{{"checkpoint_id":"{name}:1"}}'.encode())
        for n, name in enumerate(names)
    ]
    store = Stored({**dict.fromkeys(names, 10), "s-0": 200_000})
    batches = await folded(store, pins)
    assert [len(batch.commands) for batch in batches] == [1, 19]


@pytest.mark.parametrize("seed", range(8))
async def test_where_batches_end_changes_no_result(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(seed)
    sizes = {f"s-{n}": chance.choice([0, 5, 300]) for n in range(30)}
    records = [random_command(chance, offset, chance.choice(list(sizes))) for offset in range(600)]

    async def results() -> list[tuple[int, ResultRecord]]:
        return [one for batch in await folded(Stored(sizes, b'{"a":1}'), records) for one in batch.results]

    wanted = await results()
    assert len(wanted) == len(records)
    monkeypatch.setattr("waypost_worker.partition.fold._LOAD_ITEMS", chance.randint(1, 1_000))
    monkeypatch.setattr("waypost_worker.partition.fold._LARGEST_SESSION", 300)
    monkeypatch.setattr("waypost_worker.partition.batch.RESULT_BYTES", chance.randint(1, 20_000_000))
    monkeypatch.setattr("waypost_worker.partition.batch._TURN", chance.randint(1, 50))
    batches = await folded(Stored(sizes, b'{"a":1}'), records)
    assert len(batches) > 3
    assert [one for batch in batches for one in batch.results] == wanted


def random_command(chance: Random, offset: int, name: str) -> Record:
    at = f'"checkpoint_id":"{name}:{chance.randint(1, 6)}"'
    kind, body = chance.choice(
        [
            (EventType.CREATE, '{"name":"n","data":{"a":1}}'),
            (EventType.CREATE, '{"name":"n","data":{"a":1}}'),
            (EventType.PIN, f"{{{at}}}"),
            (EventType.DELETE, f"{{{at}}}"),
            (EventType.ROLLBACK, f"{{{at}}}"),
            (EventType.ROLLBACK, f'{{{at},"discard_later":{chance.choice(["true", "false"])}}}'),
            (EventType.CONFIGURE, f'{{"max_checkpoints":{chance.randint(2, 40)}}}'),
            (EventType.CLEAR, "{}"),
            (EventType.CLEAR, '{"bad":1}'),
        ]
    )
    return Record(offset, name.encode(), kind, body.encode())


async def test_the_event_loop_gets_a_turn_between_commands_that_do_much() -> None:
    names = [f"s-{n}" for n in range(9)]
    clears = [
        Record(n, name.encode(), EventType.CONFIGURE, b'{"max_checkpoints":2}')
        for n, name in enumerate(names)
    ]
    decoded = [decode(record, 0, 1) for record in clears]

    class Pieces:
        async def batch(self) -> AsyncGenerator[Sequence[Decoded], None]:
            yield decoded

        def put_back(self, _: Sequence[Decoded]) -> None:
            raise AssertionError("all of them fit")

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    folder = BatchFolder(
        ResultEncoder("results", 0),
        Stored(dict.fromkeys(names, 9_000)),
        PartitionState(),
        RejectedWindow(),
        lambda: 10,
    )
    counting = asyncio.create_task(count())
    await folder.fold(Pieces(), 0)
    counting.cancel()
    assert turns >= len(names) - 1


async def test_rejected_commands_make_room_for_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waypost_worker.partition.kept.PARTS", 2)
    monkeypatch.setattr("waypost_worker.partition.kept.PART_ROWS", 2)
    window = RejectedWindow(parts=((0, 2),))
    folder = BatchFolder(ResultEncoder("results", 0), Stored({}), PartitionState(), window, lambda: 10**9)

    async def changes(offsets: range, body: bytes) -> Changes:
        records = [Record(n, b"s", EventType.CLEAR, body) for n in offsets]
        return (await folder.fold(BatchSplitter(records, 0, 1, NO_LIMIT), 0)).changes

    assert (await changes(range(3, 5), b"{}")).rejected_window is None
    found = await changes(range(5, 7), b"?")
    assert found.rejected_window is not None
    assert found.rejected_window.parts == ((0, 2), (5, 2))
    assert (found.rejected_below, found.rejected_dropped) == (0, 0)
    found = await changes(range(7, 8), b"?")
    assert (found.rejected_below, found.rejected_dropped) == (5, 2)
    found = await changes(range(8, 9), b"?")
    assert (found.rejected_below, found.rejected_dropped) == (
        0,
        0,
    )  # nothing that the batch before did not drop
    found = await changes(range(9, 20), b"?")
    assert (found.rejected_below, found.rejected_dropped) == (17, 12)  # most of them never come to the store
    assert found.rejected_window is not None
    assert found.rejected_window.parts == ((17, 2), (19, 1))
