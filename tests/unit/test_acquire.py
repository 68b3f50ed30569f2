"""Guards in taking a partition over that no fault of a server provokes at will, each with ports that behave just so."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from waypost.model.authority import Authority
from waypost.model.retention import RetentionPolicy
from waypost.wire.envelope import KafkaRecord
from waypost_worker.partition.acquire import acquire
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.ownership import Acquired, Limits
from waypost_worker.partition.ports import (
    AcquiredState,
    Fence,
    FetchedResult,
    Ports,
    RenewalDueError,
    ResultRecord,
    StoredOutbox,
    UnavailableError,
)

EPOCH = 7
ENCODER = ResultEncoder("results", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def boottime(self) -> float:
        return self.now

    def walltime(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Commands:
    """An empty command log."""

    async def partitions(self) -> int:
        return 1

    async def bounds(self) -> tuple[int, int]:
        return 0, 0

    async def read(self, first: int, end: int) -> Sequence[KafkaRecord]:
        return []

    async def seek(self, offset: int) -> None:
        pass


class Found:
    """A record of the results topic, as a reader has it."""

    def __init__(self, offset: int, record: ResultRecord) -> None:
        self.offset = offset
        self.key, self.value, self.headers = record


class Results:
    """A results log in memory; ``frozen`` says how long the process sleeps at its nth claim or append."""

    def __init__(self, clock: Clock, producer_id: int = 1, frozen: dict[str, float] | None = None) -> None:
        self.records: list[ResultRecord] = []
        self.appends = 0
        self.answers_as_duplicate_of: int | None = None
        self._clock = clock
        self._producer_id = producer_id
        self._frozen = frozen or {}

    async def claim(self) -> Fence:
        self._clock.now += self._frozen.get("claim", 0)
        return Fence(self._producer_id, 0)

    async def append(self, records: Sequence[ResultRecord]) -> int:
        self.appends += 1
        if self.answers_as_duplicate_of is not None:
            return self.answers_as_duplicate_of
        self.records += records
        return len(self.records) - len(records)

    async def bounds(self) -> tuple[int, int]:
        return 0, len(self.records)

    async def read(self, first: int, end: int) -> AsyncIterator[Sequence[FetchedResult]]:
        yield [Found(offset, self.records[offset]) for offset in range(first, end)]

    def producer_of(self, record: FetchedResult) -> int:
        return self._producer_id

    broker_time = 0.0

    @property
    def unanswered_append_seconds(self) -> float:
        return 10


class Store:
    """A partition at its beginning, last owned under producer id 1."""

    def __init__(self, clock: Clock, frozen: dict[str, float] | None = None) -> None:
        self._clock = clock
        self._frozen = frozen or {}
        self.recorded: Fence | None = None

    async def acquire(self, partitions: int) -> AcquiredState:
        outbox: list[StoredOutbox] = []
        return AcquiredState(EPOCH, 0, None, -1, 0, 1, 1, RetentionPolicy(), [], Authority(), None, outbox)

    async def record_claim(self, epoch: int, fence: Fence) -> None:
        self.recorded = fence
        self._clock.now += self._frozen.get("record_claim", 0)

    async def save_position(self, epoch: int, emitted: int, results_offset: int) -> None:
        pass


async def acquired(results: Results, store: Store, clock: Clock) -> Acquired:
    commands: Any = Commands()
    topic: Any = results
    database: Any = store
    ports = Ports(lambda: commands, lambda: topic, database, clock)
    return await acquire(commands, topic, ports, ENCODER, Limits(proof_lifetime=300), sleep=clock.sleep)


async def test_a_fence_record_ends_the_tail_and_says_who_wrote_it() -> None:
    clock = Clock()
    results = Results(clock)
    taken = await acquired(results, Store(clock), clock)
    assert (results.appends, taken.position.results_offset) == (1, 1)


async def test_who_slept_after_its_claim_appends_no_fence_record() -> None:
    """Meanwhile another owner came and its epoch was forgotten: the record would land behind what that one emitted."""
    clock = Clock()
    results = Results(clock, frozen={"claim": 301})
    with pytest.raises(RenewalDueError, match="was this process suspended"):
        await acquired(results, Store(clock), clock)
    assert results.appends == 0


async def test_who_slept_after_the_wait_for_older_owners_appends_no_second_fence_record() -> None:
    clock = Clock()
    results = Results(clock, producer_id=2)
    store = Store(clock, frozen={"record_claim": 301})
    with pytest.raises(RenewalDueError, match="was this process suspended"):
        await acquired(results, store, clock)
    assert (results.appends, store.recorded) == (1, Fence(2, 0))


async def test_a_fence_record_that_is_taken_for_another_owner_s_fences_nothing() -> None:
    """A coordinator gave one producer epoch twice: the broker takes the second claimant's first append for the first
    claimant's, writes nothing, and answers with that one's offset.
    """
    clock = Clock()
    results = Results(clock)
    results.records = [
        ENCODER.acquired(EPOCH - 1, 0, Fence(1, 0)),
        ResultRecord(b"s", b'{"command":{"offset":0}}', []),
    ]
    results.answers_as_duplicate_of = 0
    with pytest.raises(UnavailableError, match="also assigned to another worker"):
        await acquired(results, Store(clock), clock)
