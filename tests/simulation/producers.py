"""How the leader of a partition judges idempotent producers (ProducerAppendInfo, ProducerStateManager of Kafka 4).

An older epoch is refused once a newer one has appended, a batch that came before is answered and not appended
again, and an idle producer is forgotten.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from waypost_worker.partition.ports import Fence, FencedError, UnavailableError

REMEMBERED_BATCHES = 5


class OutOfOrderError(UnavailableError):
    """A producer's sequence number is not the one that follows its last: a batch is missing in between."""


@dataclass(slots=True)
class _Producer:
    """What a leader knows of a producer id. ``batches`` are (first sequence, last sequence, base offset)."""

    epoch: int
    at: float
    batches: list[tuple[int, int, int]] = field(default_factory=list)


class Producers:
    """The producers of one partition. ``expiry`` is producer.id.expiration, in seconds."""

    def __init__(self, expiry: float = float("inf"), time: Callable[[], float] = lambda: 0.0) -> None:
        self._known: dict[int, _Producer] = {}
        self._expiry = expiry
        self._time = time

    def judge(self, fence: Fence, first_sequence: int, records: int) -> int | None:
        """None if the batch is to be appended, its base offset if it is there already.

        FencedError if a newer epoch has appended, OutOfOrderError if the sequence has a gap.
        """
        self._forget()
        producer = self._known.get(fence.producer_id)
        if producer is None:
            return None
        if producer.epoch == fence.producer_epoch:
            for first, last, base in producer.batches:
                if (first, last) == (first_sequence, first_sequence + records - 1):
                    return base
        if fence.producer_epoch < producer.epoch:
            raise FencedError(
                f"epoch {fence.producer_epoch} of producer {fence.producer_id} is behind {producer.epoch}"
            )
        newer = fence.producer_epoch > producer.epoch
        expected = 0 if newer else producer.batches[-1][1] + 1
        if first_sequence != expected:
            raise OutOfOrderError(f"out of order sequence {first_sequence}, expected {expected}")
        if newer:
            del self._known[fence.producer_id]
        return None

    def appended(self, fence: Fence, first_sequence: int, records: int, base: int) -> None:
        """A batch that :meth:`judge` let through is in the log."""
        producer = self._known.get(fence.producer_id)
        if producer is None:
            producer = self._known[fence.producer_id] = _Producer(fence.producer_epoch, 0)
        producer.at = self._time()
        producer.batches.append((first_sequence, first_sequence + records - 1, base))
        del producer.batches[:-REMEMBERED_BATCHES]

    def cut(self, end: int) -> None:
        """What lay at ``end`` and behind it was never there."""
        for producer in self._known.values():
            producer.batches = [batch for batch in producer.batches if batch[2] < end]
        self._known = {pid: producer for pid, producer in self._known.items() if producer.batches}

    def _forget(self) -> None:
        now = self._time()
        idle = [pid for pid, producer in self._known.items() if now - producer.at > self._expiry]
        for pid in idle:
            del self._known[pid]
