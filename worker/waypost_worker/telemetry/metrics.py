"""A worker's metrics: reports from owners become numbers in the worker's own registry.

Everything is counted per batch, and the changes of a batch are in `tallies`. At a low rate, a batch is one command, and
most of the cost of counting it is cache misses, for code and data that were not used for milliseconds. So a few batches
are kept and counted together, at the latest when the metrics are read. Knows the model's types and results, but not how
metrics are served.
"""

import platform
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client import Metric as PrometheusMetric
from prometheus_client.registry import Collector
from typing_extensions import override

from waypost import __version__
from waypost.wire.event_types import COMMAND_TYPES, EventType
from waypost_worker.partition.batch import Decoded
from waypost_worker.partition.failure import RefusedCommandError, UnexpectedError
from waypost_worker.partition.observer import AppliedBatch, Observer
from waypost_worker.partition.ownership import Acquired
from waypost_worker.partition.ports import (
    FencedError,
    ForeignWriterError,
    OwnerError,
    RefusedError,
    RenewalDueError,
    StuckError,
    UnavailableError,
)
from waypost_worker.telemetry import catalog
from waypost_worker.telemetry.catalog import Metric
from waypost_worker.telemetry.collectors import Events, Histograms, PartitionGauge

_OUTCOMES: Final = {
    EventType.REJECTED.wire: "rejected",
    EventType.DUPLICATE.wire: "duplicate",
    EventType.KEPT.wire: "kept",
}
_EXPIRED: Final = EventType.EXPIRED.wire
_TYPE_HEADER: Final = 3  # in the order in which the encoder writes headers; a test holds it
_Pair: TypeAlias = tuple[str | None, bytes]  # a command's type and its result's
_CREATE: Final[_Pair] = (EventType.CREATE.value, EventType.CREATED.wire)
# Batches kept for counting keep their data alive, so there is room for about 50 applied or emitted batches of one
# command, or for one of a megabyte. The bytes of commands are estimated from a batch's last one, because reading all of
# them would cost what this saves.
_ROOM: Final = 1024 * 1024
_ROOM_OF_A_BATCH: Final = 20 * 1024
_ROOM_OF_A_COMMAND: Final = 1024
_STEP: Final = 16
_REASONS: Final[tuple[tuple[type[OwnerError], str], ...]] = (
    (RenewalDueError, "renewal"),
    (FencedError, "fenced"),
    (RefusedError, "refused"),
    (ForeignWriterError, "foreign_writer"),
    (StuckError, "stuck"),
    (UnavailableError, "unavailable"),
)


class Metrics(Observer):
    """The metrics of one worker, and an observer of its owners."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Before(self._count_kept))  # before all others
        self._clock = clock
        # Applied batches with their partition, and emitted ones without.
        self._kept: list[tuple[int | None, AppliedBatch, float, float]] = []
        self._room = _ROOM
        self._result_bytes_seen = 0
        self._commands: Events[_Pair] = Events(catalog.COMMANDS, self.registry, _labels)
        self._rejected = self._counter(catalog.REJECTED)
        self._rejected_dropped = self._counter(catalog.REJECTED_DROPPED)
        self._expired_checkpoints = self._counter(catalog.EXPIRED_CHECKPOINTS)
        self._result_bytes = self._counter(catalog.RESULT_BYTES)
        self._batch_commands = self._fast(catalog.BATCH_COMMANDS).labels()
        self._batch_seconds = self._fast(catalog.BATCH_SECONDS).labels()
        self._postgres_seconds = self._fast(catalog.POSTGRES_SECONDS)
        self._emit_seconds = self._fast(catalog.EMIT_SECONDS).labels()
        self._end_to_end = self._fast(catalog.END_TO_END_SECONDS).labels()
        self._lag = PartitionGauge(catalog.LAG, self.registry).values
        self._record_age = PartitionGauge(catalog.RECORD_AGE, self.registry).values
        self._last_progress = PartitionGauge(catalog.LAST_PROGRESS, self.registry).values
        self._assigned = self._gauge(catalog.ASSIGNED)
        self._owned = self._gauge(catalog.OWNED)
        self._refused = self._gauge(catalog.REFUSED)
        self._failing = self._gauge(catalog.FAILING)
        self._refused_offset = PartitionGauge(catalog.REFUSED_OFFSET, self.registry).values
        self._open_transaction = PartitionGauge(catalog.OPEN_TRANSACTION, self.registry).values
        self._acquisitions = self._counter(catalog.ACQUISITIONS)
        self._acquire_seconds = self._histogram(catalog.ACQUIRE_SECONDS)
        self._terms_ended = self._counter(catalog.TERMS_ENDED)
        for reason in ("released", *(reason for _, reason in _REASONS), "error"):
            self._terms_ended.labels(reason)  # from 0 on: a counter that begins at 1 shows no increase
        self._reemitted = self._counter(catalog.REEMITTED)
        self._pool = self._gauge(catalog.POOL)
        self._pool_most = self._gauge(catalog.POOL_MOST)
        self._shard_up = self._gauge(catalog.SHARD_UP)
        self._loop_delay = self._gauge(catalog.LOOP_DELAY)
        self._gauge(catalog.BUILD).labels(__version__, platform.python_version()).set(1)
        self._owned_now: set[int] = set()
        self._refused_now: set[int] = set()
        self._failing_now: set[int] = set()
        self._positions: dict[int, int] = {}
        ProcessCollector(registry=self.registry)

    # Reports from owners.

    @override
    def acquired(self, partition: int, acquired: Acquired, seconds: float) -> None:
        self._acquisitions.inc()
        self._acquire_seconds.observe(seconds)
        self._reemitted.inc(acquired.reemitted)
        # A failed one must make progress first, or its alert would end with every new attempt.
        if partition not in self._refused_offset:
            self._refused_now.discard(partition)
        self._owned_now.add(partition)
        self._count_partitions()
        # A partition that is acquired repeatedly and applies nothing makes no progress.
        self._count_kept()
        self._last_progress.setdefault(partition, self._clock())

    @override
    def applied(self, partition: int, batch: AppliedBatch) -> None:
        self._keep(partition, batch, batch.seconds)
        if self._failing_now or self._refused_offset:
            self._recovered(partition)

    @override
    def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
        self._keep(None, batch, seconds)

    @override
    def ended(self, partition: int, why: OwnerError | None, wait: float) -> None:
        reason = "released" if why is None else _reason(why)
        self._terms_ended.labels(reason).inc()
        self._owned_now.discard(partition)
        self._open_transaction.pop(partition, None)
        if why is None:
            self._recovered(partition)
        if reason == "refused":
            self._refused_now.add(partition)
            self._failing_now.discard(partition)
        elif partition not in self._refused_offset:
            self._refused_now.discard(partition)
        if isinstance(why, RefusedCommandError):
            self._refused_offset[partition] = why.offset
        elif isinstance(why, UnexpectedError) and partition not in self._refused_now:
            self._failing_now.add(partition)
        self._count_partitions()

    # Reports from the worker, every few seconds.

    def assignment(self, partitions: frozenset[int]) -> None:
        """Set the partitions that the group assigns to this worker now; series of other partitions end."""
        self._count_kept()
        self._assigned.set(len(partitions))
        for values in (
            self._lag,
            self._record_age,
            self._last_progress,
            self._refused_offset,
            self._open_transaction,
            self._positions,
        ):
            for gone in values.keys() - partitions:
                del values[gone]
        self._refused_now &= partitions
        self._failing_now &= partitions
        self._count_partitions()

    def lag(self, partition: int, commands: int, position: int) -> None:
        """Set how many records wait in the log, starting at ``position``."""
        self._count_kept()
        self._lag[partition] = commands
        moved = self._positions.get(partition, position) != position
        self._positions[partition] = position
        if commands == 0:
            self._record_age[partition] = 0
        if moved or commands == 0:
            self._last_progress[partition] = self._clock()
        if commands == 0 and partition in self._owned_now:
            self._recovered(partition)

    def open_transaction(self, partition: int, seconds: float) -> None:
        """For how long a client's open transaction has kept a partition from being read on; 0 if none does."""
        self._open_transaction[partition] = seconds

    def pool(self, shard: int, used: int, idle: int, most: int) -> None:
        """Connections to one Postgres."""
        self._pool.labels(shard, "used").set(used)
        self._pool.labels(shard, "idle").set(idle)
        self._pool_most.labels(shard).set(most)

    def shard_up(self, shard: int, well: bool) -> None:
        """Set whether a database answers."""
        self._shard_up.labels(shard).set(well)

    def postgres(self, shard: int, operation: str) -> Callable[[float], None]:
        """Return a function that takes the seconds of each answered call of the store."""
        return self._postgres_seconds.labels(shard, operation).observe

    def loop_delay(self, seconds: float) -> None:
        """The longest recent delay of the event loop."""
        self._loop_delay.set(seconds)

    def _keep(self, partition: int | None, batch: AppliedBatch, seconds: float) -> None:
        commands = batch.commands
        self._kept.append((partition, batch, seconds, self._clock()))
        size = len(commands[-1].record.value or b"") + _ROOM_OF_A_COMMAND
        self._room -= _ROOM_OF_A_BATCH + len(commands) * size + batch.result_bytes
        if self._room < 0:
            self._count_kept()

    def _count_kept(self) -> None:
        """Count what was kept: called before anybody looks, and before what must come after it."""
        kept, self._kept, self._room = self._kept, [], _ROOM
        self._result_bytes_seen = 0
        for partition, batch, seconds, at in kept:
            if partition is None:
                self._count_emitted(batch, seconds, at)
            else:
                self._count_applied(partition, batch, at)
        self._result_bytes.inc(self._result_bytes_seen)

    def _count_applied(self, partition: int, batch: AppliedBatch, at: float) -> None:
        commands = batch.commands
        if creates := len(commands) - len(batch.others):
            self._commands.seen[_CREATE] += creates
        for place in batch.others:
            result = batch.made[place][1]
            result_type = result.headers[_TYPE_HEADER][1]
            self._commands.seen[_kind(commands[place]), result_type] += 1
            if result_type == _EXPIRED:
                self._expired_checkpoints.inc(orjson.loads(result.value)["count"])
        for row in batch.rejected:
            self._rejected.labels(row.code).inc()
        if batch.rejected_dropped:
            self._rejected_dropped.inc(batch.rejected_dropped)
        self._result_bytes_seen += batch.result_bytes
        self._batch_commands.observe(len(commands))
        self._batch_seconds.observe(batch.seconds)
        self._record_age[partition] = max(0.0, at - commands[-1].record.timestamp / 1000)
        self._last_progress[partition] = at

    def _count_emitted(self, batch: AppliedBatch, seconds: float, at: float) -> None:
        self._emit_seconds.observe(seconds)
        commands = batch.commands
        # Results that were only compared come before those that are emitted.
        first = len(commands) - len(batch.results)
        # The broker stamps what arrives together alike, and what comes later never earlier: most need no look.
        for start in range(first, len(commands), _STEP):
            step = commands[start : start + _STEP]
            if (stamp := step[0].record.timestamp) == step[-1].record.timestamp:
                self._end_to_end.observe_many(max(0.0, at - stamp / 1000), len(step))
            else:
                for one in step:
                    self._end_to_end.observe(max(0.0, at - one.record.timestamp / 1000))

    def _recovered(self, partition: int) -> None:
        """# The cause of an owner's failure is gone."""
        self._failing_now.discard(partition)
        if self._refused_offset.pop(partition, None) is not None:
            self._refused_now.discard(partition)
        self._count_partitions()

    def _count_partitions(self) -> None:
        self._owned.set(len(self._owned_now - self._refused_now - self._failing_now))
        self._refused.set(len(self._refused_now))
        self._failing.set(len(self._failing_now))

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _fast(self, metric: Metric) -> Histograms:
        return Histograms(metric, self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(
            metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
        )


class _Before(Collector):
    """Has no metric: calls ``action`` at the beginning of each scrape."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action

    @override
    def collect(self) -> Iterable[PrometheusMetric]:
        self._action()
        return ()


def _kind(decoded: Decoded) -> str | None:
    """A command's type; None without one that is known, so that what agents invent is not remembered."""
    kind = None if decoded.envelope is None else decoded.envelope.type
    return kind if kind in COMMAND_TYPES else None


def _labels(pair: _Pair) -> tuple[str, ...]:
    kind, result = pair
    return "other" if kind is None else kind.removeprefix("waypost."), _OUTCOMES.get(result, "accepted")


def _reason(why: OwnerError) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(why, kind)), "error")
