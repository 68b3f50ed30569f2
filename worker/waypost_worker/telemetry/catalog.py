"""Every metric of workers and of commands that recover: name, kind, labels, meaning. Made from here: the metrics
themselves, the reference in docs/metrics.md, and the check of dashboard and alert rules.

No label ever names a session, a command or anything else that agents choose.
"""

from dataclasses import dataclass
from typing import Final, Literal

_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``name`` is without the suffix that its kind adds (``_total``, ``_bucket``, …)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that a query uses."""
        suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(self.name + suffix for suffix in suffixes[self.kind])


COMMANDS: Final = Metric(
    "waypost_commands",
    "counter",
    "Commands applied. type: the command's type without 'waypost.', 'other' for an unknown or unreadable one; "
    "outcome: accepted, duplicate, kept (an expiry of a session that was not idle) or rejected",
    ("type", "outcome"),
)
EXPIRED_CHECKPOINTS: Final = Metric(
    "waypost_expired_checkpoints", "counter", "Checkpoints removed because their sessions were idle"
)
REJECTED: Final = Metric(
    "waypost_rejected_commands", "counter", "Commands refused, by rejection code", ("code",)
)
REJECTED_DROPPED: Final = Metric(
    "waypost_rejected_dropped",
    "counter",
    "Rejected commands that were dropped from Postgres to make room for newer ones: 10,000 and 256 MiB of each "
    "partition are kept",
)
BATCH_COMMANDS: Final = Metric(
    "waypost_batch_commands",
    "histogram",
    "Commands in one batch",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000),
)
BATCH_SECONDS: Final = Metric(
    "waypost_batch_seconds", "histogram", "From decoding a batch to the end of its commit", buckets=_FAST
)
POSTGRES_SECONDS: Final = Metric(
    "waypost_postgres_seconds",
    "histogram",
    "One answered Postgres call. operation: load (sessions that are not in memory), sizes (of many sessions "
    "before they are loaded), contents (data that a rollback returns), commit (a batch), "
    "acquire, record_claim or save_position; shard: the database's place in the list, from 0",
    ("shard", "operation"),
    _FAST,
)
RESULT_BYTES: Final = Metric(
    "waypost_result_bytes",
    "counter",
    "Bytes of the results of applied commands. A 200-byte rollback can have a 1 MB result",
)
EMIT_SECONDS: Final = Metric(
    "waypost_emit_seconds", "histogram", "Appending a batch's results until Kafka has them", buckets=_FAST
)
END_TO_END_SECONDS: Final = Metric(
    "waypost_end_to_end_seconds",
    "histogram",
    "From a command's record timestamp (the broker's clock) to its result being in Kafka (this worker's "
    "clock), per command",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
LAG: Final = Metric(
    "waypost_lag_commands",
    "gauge",
    "Offsets of the command log that can be read and are not applied yet, checked every few seconds",
    ("partition",),
)
RECORD_AGE: Final = Metric(
    "waypost_record_age_seconds",
    "gauge",
    "How old the newest applied command was when it was committed; 0 once the partition has caught up",
    ("partition",),
)
LAST_PROGRESS: Final = Metric(
    "waypost_last_progress_timestamp_seconds",
    "gauge",
    "When a partition last committed a batch, was read further, had nothing left to do, or was first "
    "assigned to this worker",
    ("partition",),
)
ASSIGNED: Final = Metric(
    "waypost_assigned_partitions", "gauge", "Partitions that the consumer group assigns to this worker"
)
OWNED: Final = Metric(
    "waypost_owned_partitions", "gauge", "Partitions that this worker has acquired and that don't fail"
)
REFUSED: Final = Metric(
    "waypost_refused_partitions",
    "gauge",
    "Partitions that are stopped until an operator acts; the log says why",
)
REFUSED_OFFSET: Final = Metric(
    "waypost_refused_offset",
    "gauge",
    "Offset of the command at which a partition is stopped, because its owner fails there each time",
    ("partition",),
)
FAILING: Final = Metric(
    "waypost_failing_partitions",
    "gauge",
    "Partitions whose owner failed with an unexpected error and has applied nothing since; the log has the "
    "traceback",
)
OPEN_TRANSACTION: Final = Metric(
    "waypost_open_transaction_seconds",
    "gauge",
    "How long a partition has been blocked by a client's open transaction; 0 if none blocks it",
    ("partition",),
)
ACQUISITIONS: Final = Metric("waypost_acquisitions", "counter", "Terms begun: partitions acquired")
ACQUIRE_SECONDS: Final = Metric(
    "waypost_acquire_seconds",
    "histogram",
    "Time from requesting a partition to owning it",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900),
)
TERMS_ENDED: Final = Metric(
    "waypost_terms_ended",
    "counter",
    "Terms ended, after which a partition is acquired again here or elsewhere. reason: released, renewal, "
    "fenced, unavailable, refused, foreign_writer, stuck or error",
    ("reason",),
)
REEMITTED: Final = Metric(
    "waypost_reemitted_results", "counter", "Results of a former owner that were emitted at a takeover"
)
POOL: Final = Metric(
    "waypost_postgres_pool_connections",
    "gauge",
    "Connections to Postgres. state: used or idle; a shard that has not been reached yet has none",
    ("shard", "state"),
)
SHARD_UP: Final = Metric(
    "waypost_postgres_shard_up",
    "gauge",
    "1 while a database answers this worker with a usable schema, otherwise 0; checked every few seconds, "
    "even if there is no work for it",
    ("shard",),
)
POOL_MOST: Final = Metric(
    "waypost_postgres_pool_limit", "gauge", "Maximum number of connections to Postgres", ("shard",)
)
LOOP_DELAY: Final = Metric(
    "waypost_loop_delay_seconds",
    "gauge",
    "Longest time in the last ten seconds that a ready task waited for the event loop",
)
BUILD: Final = Metric("waypost_build_info", "gauge", "Always 1", ("version", "python"))
RECOVERED: Final = Metric(
    "waypost_recovery_records",
    "counter",
    "Records processed by a recovery command since it began. work: replay, rebuild (from results) or verify",
    ("work", "partition"),
)
RECOVERY_OFFSET: Final = Metric(
    "waypost_recovery_next_offset",
    "gauge",
    "Offset at which a recovery command continues; everything before it is done, and with a replay committed",
    ("work", "partition"),
)
PLANNED: Final = Metric(
    "waypost_recovery_planned_records",
    "gauge",
    "Total records that a recovery command has to process",
    ("work",),
)

METRICS: Final = (
    COMMANDS,
    REJECTED,
    REJECTED_DROPPED,
    EXPIRED_CHECKPOINTS,
    BATCH_COMMANDS,
    BATCH_SECONDS,
    POSTGRES_SECONDS,
    RESULT_BYTES,
    EMIT_SECONDS,
    END_TO_END_SECONDS,
    LAG,
    RECORD_AGE,
    LAST_PROGRESS,
    ASSIGNED,
    OWNED,
    REFUSED,
    REFUSED_OFFSET,
    FAILING,
    OPEN_TRANSACTION,
    ACQUISITIONS,
    ACQUIRE_SECONDS,
    TERMS_ENDED,
    REEMITTED,
    POOL,
    POOL_MOST,
    SHARD_UP,
    LOOP_DELAY,
    BUILD,
)
RECOVERY_METRICS: Final = (RECOVERED, RECOVERY_OFFSET, PLANNED)
