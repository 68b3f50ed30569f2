"""A worker's metrics: what owners tell becomes numbers in a registry of the worker's own.

Everything is counted per batch. Knows the model's types and results, and nothing of how they are served.
"""

import platform
import time
from collections import Counter as Count
from collections.abc import Callable
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.samples import Sample

from waypost import __version__
from waypost.commands import COMMAND_TYPES
from waypost_worker.partition.acquire import Acquired, RenewalDueError
from waypost_worker.partition.apply import Decoded
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.owner import StuckError
from waypost_worker.partition.ports import (
    FencedError,
    ForeignWriterError,
    OwnerError,
    RefusedError,
    UnavailableError,
)
from waypost_worker.telemetry import catalogue
from waypost_worker.telemetry.catalogue import Metric
from waypost_worker.telemetry.weighted import WeightedHistogram

_OUTCOMES: Final = {b"waypost.command.rejected": "rejected", b"waypost.command.duplicate": "duplicate"}
_KIND: Final = attrgetter("envelope.type")
_STAMP: Final = attrgetter("record.timestamp")
_RECORD: Final = itemgetter(1)
_HEADERS: Final = attrgetter("headers")
_TYPE_HEADER: Final = itemgetter(3)  # in the order in which the encoder writes headers; a test holds it
_RESULT_TYPE: Final = itemgetter(1)
_REASONS: Final[tuple[tuple[type[OwnerError], str], ...]] = (
    (RenewalDueError, "renewal"),
    (FencedError, "fenced"),
    (RefusedError, "refused"),
    (ForeignWriterError, "foreign_writer"),
    (StuckError, "stuck"),
    (UnavailableError, "unavailable"),
)


class Metrics:
    """The metrics of one worker, and an observer of its owners."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._clock = clock
        self._commands = self._counter(catalogue.COMMANDS)
        self._rejected = self._counter(catalogue.REJECTED)
        self._batch_commands = self._histogram(catalogue.BATCH_COMMANDS)
        self._batch_seconds = self._histogram(catalogue.BATCH_SECONDS)
        self._postgres_seconds = self._histogram(catalogue.POSTGRES_SECONDS)
        self._emit_seconds = self._histogram(catalogue.EMIT_SECONDS)
        self._end_to_end = WeightedHistogram(catalogue.END_TO_END_SECONDS, self.registry)
        self._lag = self._gauge(catalogue.LAG)
        self._record_age = self._gauge(catalogue.RECORD_AGE)
        self._last_progress = self._gauge(catalogue.LAST_PROGRESS)
        self._assigned = self._gauge(catalogue.ASSIGNED)
        self._owned = self._gauge(catalogue.OWNED)
        self._refused = self._gauge(catalogue.REFUSED)
        self._acquisitions = self._counter(catalogue.ACQUISITIONS)
        self._acquire_seconds = self._histogram(catalogue.ACQUIRE_SECONDS)
        self._terms_ended = self._counter(catalogue.TERMS_ENDED)
        self._reemitted = self._counter(catalogue.REEMITTED)
        self._pool = self._gauge(catalogue.POOL)
        self._pool_most = self._gauge(catalogue.POOL_MOST)
        self._loop_delay = self._gauge(catalogue.LOOP_DELAY)
        self._gauge(catalogue.BUILD).labels(__version__, platform.python_version()).set(1)
        self._known: dict[tuple[str | None, bytes], Counter] = {}
        self._owned_now: set[int] = set()
        self._refused_now: set[int] = set()
        ProcessCollector(registry=self.registry)

    # What owners tell.

    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        """A term began."""
        self._acquisitions.inc()
        self._acquire_seconds.observe(seconds)
        self._reemitted.inc(acquired.reemitted)
        self._refused_now.discard(partition)
        self._owned_now.add(partition)
        self._count_partitions()
        # Who acquires again and again and applies nothing makes no progress.
        if not any(sample.labels["partition"] == str(partition) for sample in _samples(self._last_progress)):
            self._progressed(partition)

    def applied(self, partition: int, batch: AppliedBatch) -> None:
        """A batch was committed."""
        # Only a refused command may have no envelope; without one the loops over a batch's commands are all in C.
        kinds = map(_kind if batch.rejected else _KIND, batch.commands)
        results = map(_RESULT_TYPE, map(_TYPE_HEADER, map(_HEADERS, map(_RECORD, batch.made))))
        for pair, times in Count(zip(kinds, results, strict=True)).items():
            (self._known.get(pair) or self._child(pair)).inc(times)
        for code, times in Count(row.code for row in batch.rejected).items():
            self._rejected.labels(code).inc(times)
        self._batch_commands.observe(len(batch.commands))
        self._batch_seconds.observe(batch.seconds)
        age = self._clock() - batch.commands[-1].record.timestamp / 1000
        self._record_age.labels(partition).set(max(0.0, age))
        self._progressed(partition)

    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        """A batch's results are in the topic."""
        self._emit_seconds.observe(seconds)
        now = self._clock()
        # What was only compared stands before what is emitted.
        emitted = islice(batch.commands, len(batch.commands) - len(batch.results), None)
        for stamp, times in Count(map(_STAMP, emitted)).items():
            self._end_to_end.observe(max(0.0, now - stamp / 1000), times)

    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        """A term ended."""
        reason = "released" if why is None else _reason(why)
        self._terms_ended.labels(reason).inc()
        self._owned_now.discard(partition)
        if reason == "refused":
            self._refused_now.add(partition)
        else:
            self._refused_now.discard(partition)
        self._count_partitions()

    # What the worker tells, every few seconds.

    def assignment(self, partitions: frozenset[int]) -> None:
        """What the group gives this worker now; series of other partitions end."""
        self._assigned.set(len(partitions))
        for gauge in (self._lag, self._record_age, self._last_progress):
            for labelled in [sample.labels["partition"] for sample in _samples(gauge)]:
                if int(labelled) not in partitions:
                    gauge.remove(labelled)
        self._refused_now &= partitions
        self._count_partitions()

    def lag(self, partition: int, commands: int) -> None:
        """How many records wait in the log."""
        self._lag.labels(partition).set(commands)
        if commands == 0:
            self._record_age.labels(partition).set(0)
            self._progressed(partition)

    def pool(self, shard: int, used: int, idle: int, most: int) -> None:
        """Connections to one Postgres."""
        self._pool.labels(shard, "used").set(used)
        self._pool.labels(shard, "idle").set(idle)
        self._pool_most.labels(shard).set(most)

    def postgres(self, shard: int, operation: str, seconds: float) -> None:
        """One answered call of the store."""
        self._postgres_seconds.labels(shard, operation).observe(seconds)

    def loop_delay(self, seconds: float) -> None:
        """The longest recent delay of the event loop."""
        self._loop_delay.set(seconds)

    def _progressed(self, partition: int) -> None:
        self._last_progress.labels(partition).set(self._clock())

    def _count_partitions(self) -> None:
        self._owned.set(len(self._owned_now))
        self._refused.set(len(self._refused_now))

    def _child(self, pair: tuple[str | None, bytes]) -> Counter:
        kind, result = pair
        label = kind.removeprefix("waypost.") if kind in COMMAND_TYPES else "other"
        child = self._commands.labels(label, _OUTCOMES.get(result, "accepted"))
        if kind is None or kind in COMMAND_TYPES:  # what agents invent is not remembered
            self._known[pair] = child
        return child

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(
            metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
        )


def _kind(decoded: Decoded) -> str | None:
    return None if decoded.envelope is None else decoded.envelope.type


def _reason(why: OwnerError) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(why, kind)), "error")


def _samples(gauge: Gauge) -> list[Sample]:
    return [sample for family in gauge.collect() for sample in family.samples]
