"""What a Kafka cluster holds: partitions of commands and of results, and the transaction coordinator.

Producers are judged as a Kafka 4 leader judges them (ProducerAppendInfo, ProducerStateManager): an older epoch
is refused once a newer one has appended, a batch that came before is answered and not appended again, and an
idle producer is forgotten. No I/O and no time of its own; clients are in the module of the ports.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from waypost_worker.partition.ports import (
    Fence,
    FencedError,
    FetchedResult,
    RefusedError,
    ResultRecord,
    UnavailableError,
)

REMEMBERED_BATCHES = 5


class CommandRecord(NamedTuple):
    """A record of the command topic, with the fields that aiokafka gives it. ``timestamp`` in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class CommandPartition:
    """One partition of the command topic. Offsets may have gaps (transaction markers, aborted records)."""

    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.records: list[CommandRecord] = []
        self.trimmed: list[CommandRecord] = []  # what retention removed
        self.waiting: list[Callable[[], None]] = []  # fetches that wait for more
        self._offsets: list[int] = []
        self.transactions: dict[int, int] = {}  # open ones: id to first offset

    def append(
        self, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> int:
        offset = self.end
        self.records.append(CommandRecord(offset, timestamp, key, value, headers))
        self._offsets.append(offset)
        self.end += 1
        self._wake()
        return offset

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for wake in waiting:
            wake()

    def gap(self, offsets: int = 1) -> None:
        """Offsets at which a reader never sees a record."""
        self.end += offsets

    @property
    def stable_end(self) -> int:
        """One past the last record that a reader of committed records may see."""
        return min(self.transactions.values(), default=self.end)

    def open(self, transaction: int) -> None:
        """What is appended from here on is held back until the transaction ends."""
        self.transactions[transaction] = self.end

    def commit(self, transaction: int) -> None:
        del self.transactions[transaction]
        self.gap()
        self._wake()

    def abort(self, transaction: int, offsets: Sequence[int]) -> None:
        """Its records are never seen."""
        gone = set(offsets)
        self.records = [record for record in self.records if record.offset not in gone]
        self._offsets = [record.offset for record in self.records]
        self.commit(transaction)

    def end_transactions(self) -> None:
        """Commit all that are open."""
        for transaction in list(self.transactions):
            self.commit(transaction)

    def trim(self, start: int) -> None:
        """Retention removes what lies before ``start``."""
        self.start = max(self.start, start)
        self.trimmed += [record for record in self.records if record.offset < self.start]
        self.records = [record for record in self.records if record.offset >= self.start]
        self._offsets = [record.offset for record in self.records]

    def everything(self) -> list[CommandRecord]:
        """The records with those that retention removed."""
        return self.trimmed + self.records

    def cut(self, end: int) -> None:
        """An unclean leader election: what lies at ``end`` and behind it was never there."""
        self.records = [record for record in self.records if record.offset < end]
        self._offsets = [record.offset for record in self.records]
        self.end = end
        self.start = min(self.start, end)

    def between(self, first: int, end: int, most: int | None = None) -> list[CommandRecord]:
        """The records from ``first`` up to but without ``end``; RefusedError if ``first`` is not in the log."""
        if not self.start <= first <= self.end:
            raise RefusedError(
                f"the command partition holds offsets {self.start} to {self.end - 1}, {first} is none of them"
            )
        low = bisect_left(self._offsets, first)
        high = bisect_left(self._offsets, min(end, self.stable_end))
        return self.records[low : high if most is None else min(high, low + most)]

    def next_of(self, first: int, most: int) -> tuple[list[CommandRecord], int]:
        """Up to ``most`` records from ``first`` on, and the offset to go on from."""
        found = self.between(first, self.stable_end, most)
        if len(found) == most:
            return found, found[-1].offset + 1
        return found, max(first, self.stable_end)


@dataclass(slots=True)
class _Producer:
    """What a leader knows of a producer id. ``batches`` are (first sequence, last sequence, base offset)."""

    epoch: int
    at: float
    batches: list[tuple[int, int, int]] = field(default_factory=list)


class ResultsPartition:
    """One partition of the results topic, at its leader. ``expiry`` is producer.id.expiration, in seconds."""

    def __init__(self, expiry: float, time: Callable[[], float]) -> None:
        self.start = 0
        self.end = 0
        self.records: list[FetchedResult] = []
        self.trimmed: list[FetchedResult] = []  # what retention removed
        self.producers: dict[int, _Producer] = {}
        self._expiry = expiry
        self._time = time

    def append(self, fence: Fence, first_sequence: int, records: Sequence[ResultRecord]) -> int:
        """Append a batch of a producer; the base offset, also if the batch is there already."""
        now = self._time()
        self._forget(now)
        producer = self.producers.get(fence.producer_id)
        last_sequence = first_sequence + len(records) - 1
        if producer is not None and producer.epoch == fence.producer_epoch:
            for first, last, base in producer.batches:
                if (first, last) == (first_sequence, last_sequence):
                    return base
        if producer is not None:
            if fence.producer_epoch < producer.epoch:
                raise FencedError(
                    f"epoch {fence.producer_epoch} of producer {fence.producer_id} is behind {producer.epoch}"
                )
            newer = fence.producer_epoch > producer.epoch
            expected = 0 if newer else producer.batches[-1][1] + 1
            if first_sequence != expected:
                raise UnavailableError(f"out of order sequence {first_sequence}, expected {expected}")
            if newer:
                producer = None
        if producer is None:
            producer = self.producers[fence.producer_id] = _Producer(fence.producer_epoch, now)
        base = self.write(records)
        producer.at = now
        producer.batches.append((first_sequence, last_sequence, base))
        del producer.batches[:-REMEMBERED_BATCHES]
        return base

    def write(self, records: Sequence[ResultRecord]) -> int:
        """Append without any check, as a producer that is no owner's does."""
        base = self.end
        for record in records:
            self.records.append(FetchedResult(self.end, record.key, record.value, record.headers))
            self.end += 1
        return base

    def gap(self, offsets: int = 1) -> None:
        """Offsets at which a reader never sees a record."""
        self.end += offsets

    def trim(self, start: int) -> None:
        """Retention removes what lies before ``start``."""
        self.start = max(self.start, start)
        self.trimmed += [record for record in self.records if record.offset < self.start]
        self.records = [record for record in self.records if record.offset >= self.start]

    def cut(self, end: int) -> None:
        """An unclean leader election: what lies at ``end`` and behind it was never there."""
        self.records = [record for record in self.records if record.offset < end]
        self.end = end
        self.start = min(self.start, end)
        for producer in self.producers.values():
            producer.batches = [batch for batch in producer.batches if batch[2] < end]
        self.producers = {pid: producer for pid, producer in self.producers.items() if producer.batches}

    def between(self, first: int, end: int) -> list[FetchedResult]:
        """The records from ``first`` up to but without ``end``; RefusedError if ``first`` is not in the log."""
        if not self.start <= first <= self.end:
            raise RefusedError(
                f"the results partition holds offsets {self.start} to {self.end - 1}, {first} is none of them"
            )
        low = bisect_left(self.records, first, key=_offset)
        high = bisect_left(self.records, end, key=_offset)
        return self.records[low:high]

    def _forget(self, now: float) -> None:
        idle = [pid for pid, producer in self.producers.items() if now - producer.at > self._expiry]
        for pid in idle:
            del self.producers[pid]


def _offset(record: FetchedResult) -> int:
    return record.offset


class Coordinator:
    """Gives producer ids and epochs to transactional ids (InitProducerId of KIP-98).

    A new producer id comes when the id was idle for ``expiry`` seconds or its epochs are used up; it does not
    fence the old one.
    """

    def __init__(self, expiry: float, epochs: int, time: Callable[[], float]) -> None:
        self._expiry = expiry
        self._epochs = epochs
        self._time = time
        self._next_producer_id = 1000
        self._claims: dict[str, tuple[Fence, float]] = {}

    def claim(self, transactional_id: str) -> Fence:
        """The next epoch of this id."""
        now = self._time()
        known = self._claims.get(transactional_id)
        if known is None or now - known[1] > self._expiry or known[0].producer_epoch + 1 >= self._epochs:
            self._next_producer_id += 1
            fence = Fence(self._next_producer_id, 0)
        else:
            fence = Fence(known[0].producer_id, known[0].producer_epoch + 1)
        self._claims[transactional_id] = (fence, now)
        return fence
