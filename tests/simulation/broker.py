"""What a Kafka cluster holds: partitions of commands and of results, and the transaction coordinator.

No I/O and no time of its own; clients are in the modules of the ports and of the publisher's producer.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.simulation.producers import Producers

from waypost_worker.partition.ports import Fence, RefusedError, ResultRecord


class CommandRecord(NamedTuple):
    """A record of the command topic, with the fields that aiokafka gives it. ``timestamp`` in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class StoredResult(NamedTuple):
    """A record of the results topic, with the fields that a reader is promised."""

    offset: int
    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    producer_id: int = -1  # -1 of what no owner wrote


class CommandPartition:
    """One partition of the command topic. Offsets may have gaps (transaction markers, aborted records)."""

    def __init__(self, producers: Producers | None = None) -> None:
        self.start = 0
        self.end = 0
        self.producers = producers or Producers()
        self.records: list[CommandRecord] = []
        self.trimmed: list[CommandRecord] = []  # what retention removed
        self.compacted: list[CommandRecord] = []  # what the log cleaner removed from between others
        self.waiting: list[Callable[[], None]] = []  # fetches that wait for more
        self.watch: Callable[[CommandRecord], None] | None = None  # called with all that is appended
        self._offsets: list[int] = []
        self.transactions: dict[int, int] = {}  # open ones: id to first offset
        self.topic_id = 1  # another one once the topic was created again
        self.leader_epoch = 0
        self._epoch_ends: dict[int, int] = {}  # where each former leader's records end
        self._lagging: dict[object, int] = {}  # processes that ask a former leader: where that one's log ends

    def append(
        self, timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> int:
        offset = self.end
        record = CommandRecord(offset, timestamp, key, value, headers)
        self.records.append(record)
        self._offsets.append(offset)
        self.end += 1
        if self.watch is not None:
            self.watch(record)
        self._wake()
        return offset

    def append_batch(
        self, fence: Fence, first_sequence: int, timestamp: int, messages: Sequence[ResultRecord]
    ) -> int:
        """Append a batch of an idempotent producer; the base offset, also if the batch is there already."""
        known = self.producers.judge(fence, first_sequence, len(messages))
        if known is not None:
            return known
        base = self.end
        for message in messages:
            self.append(timestamp, *message)
        self.producers.appended(fence, first_sequence, len(messages), base)
        return base

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

    def compact(self, offsets: Sequence[int]) -> None:
        """The log cleaner removes these records, although others before and behind them stay."""
        gone = set(offsets)
        self.compacted += [record for record in self.records if record.offset in gone]
        self.records = [record for record in self.records if record.offset not in gone]
        self._offsets = [record.offset for record in self.records]

    def _hole(self, first: int, end: int) -> int:
        """The first offset from ``first`` on whose record the log cleaner removed; ``end`` if there is none."""
        return min((one.offset for one in self.compacted if first <= one.offset < end), default=end)

    def everything(self) -> list[CommandRecord]:
        """The records with those that retention or the log cleaner removed."""
        return sorted(self.trimmed + self.compacted + self.records)

    def cut(self, end: int) -> None:
        """An unclean leader election: what lies at ``end`` and behind it was never there."""
        self.records = [record for record in self.records if record.offset < end]
        self._offsets = [record.offset for record in self.records]
        self.end = end
        self.start = min(self.start, end)
        self.producers.cut(end)
        self._epoch_ends[self.leader_epoch] = end
        self._epoch_ends = {epoch: min(end, before) for epoch, before in self._epoch_ends.items()}
        self.leader_epoch += 1

    def recreate(self) -> None:
        """The topic is deleted, and another one of the same name is there at once."""
        self.cut(0)
        self.topic_id += 1
        self.leader_epoch = 0
        self._epoch_ends = {}

    def diverges(self, leader_epoch: int, offset: int) -> bool:
        """Whether this log lacks records before ``offset`` that a reader has of the leader of this epoch."""
        return self._epoch_ends.get(leader_epoch, self.end) < offset

    def lag(self, process: object) -> None:
        """A former leader, cut off from the others, goes on to answer this process; it gets nothing new."""
        self._lagging[process] = self.end

    def catch_up(self, process: object) -> None:
        """The process finds the new leader."""
        self._lagging.pop(process, None)

    def seen_end(self, process: object) -> int:
        """One past the last committed record that this process may see."""
        return min(self.stable_end, self._lagging.get(process, self.end))

    def ends(self, process: object) -> tuple[int, int]:
        """The last stable offset and the high watermark, as this process sees them."""
        return self.seen_end(process), min(self.end, self._lagging.get(process, self.end))

    def between(self, first: int, end: int, most: int | None = None) -> list[CommandRecord]:
        """The records from ``first`` up to but without ``end``; RefusedError if ``first`` is not in the log."""
        if not self.start <= first <= self.end:
            raise RefusedError(
                f"the command partition holds offsets {self.start} to {self.end - 1}, {first} is none of them"
            )
        end = min(end, self.stable_end)
        hole = self._hole(first, end)
        low = bisect_left(self._offsets, first)
        high = bisect_left(self._offsets, hole)
        found = self.records[low : high if most is None else min(high, low + most)]
        if hole < end and (most is None or not found):
            raise RefusedError(
                f"the command partition has no offset {hole}, although it has later ones: compacted"
            )
        return found

    def next_of(self, first: int, most: int, process: object) -> tuple[list[CommandRecord], int]:
        """Up to ``most`` records from ``first`` on, as the process sees them, and the offset to go on from."""
        end = self.seen_end(process)
        found = self.between(first, end, most)
        hole = self._hole(first, end)
        if len(found) == most or hole < end:
            return found, found[-1].offset + 1
        return found, max(first, end)


class ResultsPartition:
    """One partition of the results topic, at its leader. ``expiry`` is producer.id.expiration, in seconds."""

    def __init__(self, expiry: float, time: Callable[[], float]) -> None:
        self.start = 0
        self.end = 0
        self.records: list[StoredResult] = []
        self.trimmed: list[StoredResult] = []  # what retention removed
        self.producers = Producers(expiry, time)
        self.watch: Callable[[ResultRecord], None] | None = None  # called with all that is appended
        self.dated = True  # whether the broker dates results (LogAppendTime)
        self.most_bytes: int | None = None  # of an append of several records: max.message.bytes
        self.refusing: Exception | None = None  # what every append is answered with, nothing being written
        self._lagging: dict[object, int] = {}  # processes that ask a former leader: where that one's log ends

    def append(self, fence: Fence, first_sequence: int, records: Sequence[ResultRecord]) -> int:
        """Append a batch of a producer; the base offset, also if the batch is there already."""
        if self.refusing is not None:
            raise self.refusing
        size = sum(len(record.value) for record in records)
        if self.most_bytes is not None and len(records) > 1 and size > self.most_bytes:
            raise RefusedError(f"{size} bytes are too large for the topic")
        known = self.producers.judge(fence, first_sequence, len(records))
        if known is not None:
            return known
        base = self.write(records, fence.producer_id)
        self.producers.appended(fence, first_sequence, len(records), base)
        return base

    def write(self, records: Sequence[ResultRecord], producer_id: int = -1) -> int:
        """Append without any check, as a producer that is no owner's does."""
        base = self.end
        for record in records:
            if self.watch is not None and producer_id >= 0:
                self.watch(record)
            self.records.append(StoredResult(self.end, *record, producer_id))
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
        self.producers.cut(end)

    def lag(self, process: object) -> None:
        """A former leader, cut off from the others, goes on to answer this process; it gets nothing new."""
        self._lagging[process] = self.end

    def catch_up(self, process: object) -> None:
        """The process finds the new leader."""
        self._lagging.pop(process, None)

    def seen_end(self, process: object) -> int:
        """One past the last record that this process may see."""
        return min(self.end, self._lagging.get(process, self.end))

    def between(self, first: int, end: int) -> list[StoredResult]:
        """The records from ``first`` up to but without ``end``; RefusedError if ``first`` is not in the log."""
        if not self.start <= first <= self.end:
            raise RefusedError(
                f"the results partition holds offsets {self.start} to {self.end - 1}, {first} is none of them"
            )
        low = bisect_left(self.records, first, key=_offset)
        high = bisect_left(self.records, end, key=_offset)
        return self.records[low:high]


def _offset(record: StoredResult) -> int:
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
        self._before: dict[str, tuple[Fence, float] | None] = {}  # what the last claim replaced

    def new_producer(self) -> Fence:
        """A producer id for a producer without a transactional id."""
        self._next_producer_id += 1
        return Fence(self._next_producer_id, 0)

    def claim(self, transactional_id: str) -> Fence:
        """The next epoch of this id."""
        now = self._time()
        known = self._claims.get(transactional_id)
        if known is None or now - known[1] > self._expiry or known[0].producer_epoch + 1 >= self._epochs:
            fence = self.new_producer()
        else:
            fence = Fence(known[0].producer_id, known[0].producer_epoch + 1)
        self._before[transactional_id] = known
        self._claims[transactional_id] = (fence, now)
        return fence

    def lose_the_last(self, transactional_id: str) -> None:
        """What was written last of this id is lost, so that its epoch is given once more."""
        before = self._before.pop(transactional_id, None)
        if before is not None:
            self._claims[transactional_id] = before
