"""Metrics: what batches and terms amount to, that the catalogue is all there is, and that labels are bounded."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from prometheus_client.samples import Sample

from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.cli.support.progress import WorkProgress
from waypost_worker.partition.batch import Batch, decode
from waypost_worker.partition.encode import ResultEncoder
from waypost_worker.partition.failure import (
    FailingCommandError,
    SlowBatchError,
    SlowCommandError,
    Suspects,
    UnexpectedError,
)
from waypost_worker.partition.observer import AppliedBatch
from waypost_worker.partition.ownership import Acquired, OwnershipProof, Position
from waypost_worker.partition.ports import (
    FencedError,
    ForeignWriterError,
    OwnerError,
    RefusedError,
    RejectedWindow,
    RenewalDueError,
    ResultRecord,
    StuckError,
    TimedOutError,
    UnavailableError,
)
from waypost_worker.partition.skips import NO_ORDERS
from waypost_worker.partition.tail import EmittedTail
from waypost_worker.runtime.clock import SystemClock
from waypost_worker.telemetry.catalog import METRICS, RECOVERY_METRICS
from waypost_worker.telemetry.health import Health
from waypost_worker.telemetry.metrics import Metrics
from waypost_worker.telemetry.observers import Observers, says_nothing
from waypost_worker.telemetry.recovery_metrics import recovery_registry

NOW = 1_800_000_000.0
CREATE = b'{"name": "n", "data": {}}'
REASONS = ("released", "renewal", "fenced", "unavailable", "refused", "foreign_writer", "stuck", "error")


@dataclass
class Record:
    offset: int
    value: bytes | None
    key: bytes | None = b"session"
    timestamp: int = int(NOW * 1000) - 250
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def command(offset: int, kind: str, body: bytes, command_id: str | None = None, age_ms: int = 250) -> Record:
    headers = command_headers(command_id or f"c{offset}", b"/t", kind.encode(), b"2026-11-24T08:24:59Z")
    return Record(offset, body, timestamp=int(NOW * 1000) - age_ms, headers=headers)


def batch(*records: Record) -> AppliedBatch:
    decoded = [decode(record, 0, 1) for record in records]
    folding = Batch(ResultEncoder("waypost.results", 0), {}, PartitionState())
    for one in decoded:
        folding.add(one)
    made, _ = folding.finish({})
    size = sum(len(record.value) for _, record in made)
    return AppliedBatch(decoded, folding.others, made, made, folding.changes.rejected, 0.004, 0.003, size)


def acquired() -> Acquired:
    fence_record = ResultRecord(None, b"", [])
    begun = Position(1, 0, -1, 0, found=(-1, 0), suppressed_up_to=-1, fence_record=fence_record)
    return Acquired(
        begun,
        None,
        1,
        PartitionState(),
        RejectedWindow(),
        EmittedTail(-1),
        OwnershipProof(SystemClock(), 300),
        reemitted=0,
        orders=NO_ORDERS,
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: NOW)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    found: list[Sample] = [s for family in metrics.registry.collect() for s in family.samples]
    return {tuple(s.labels.values()): s.value for s in found if s.name == name}


def value(metrics: Metrics, name: str, *labels: str) -> float:
    return samples(metrics, name)[labels]


def test_the_registry_holds_what_the_catalog_says(metrics: Metrics) -> None:
    told = batch(command(0, EventType.CREATE, CREATE), Record(1, b"?"))
    metrics.applied(0, told)
    metrics.emitted(0, told, 0.001)
    metrics.ended(0, None, 0)
    metrics.postgres(0, "commit")(0.003)
    metrics.pool(0, 1, 2, 3)
    metrics.shard_up(0, True)
    metrics.lag(0, 5, 0)
    metrics.open_transaction(0, 3.0)
    metrics.ended(1, FailingCommandError(1, 4711, 3, UnexpectedError(TypeError())), 30)
    families = {
        family.name: family for family in metrics.registry.collect() if not family.name.startswith("process_")
    }
    assert set(families) == {metric.name for metric in METRICS}
    for metric in METRICS:
        family = families[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
            assert sample.name in metric.series or sample.name == f"{metric.name}_created"


def test_no_label_can_name_what_agents_choose() -> None:
    allowed = {"type", "outcome", "code", "operation", "partition", "reason", "state", "version", "python"}
    allowed |= {"work", "shard"}
    assert {label for metric in (*METRICS, *RECOVERY_METRICS) for label in metric.labels} <= allowed


def test_progress_of_recovery_is_what_the_catalog_says_and_not_a_worker() -> None:
    progress = WorkProgress("replay", 100, "commands")
    for partition, count, position in ((0, 10, 10), (1, 5, 25), (0, 7, 17)):
        progress.advanced(partition, count, position)
    families = {
        family.name: family
        for family in recovery_registry(progress).collect()
        if not family.name.startswith("process_")
    }
    assert set(families) == {metric.name for metric in RECOVERY_METRICS}
    for metric in RECOVERY_METRICS:
        family = families[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        assert all(set(sample.labels) == set(metric.labels) for sample in family.samples)
    shown = {tuple(s.labels.values()): s.value for s in families["waypost_recovery_records"].samples}
    assert shown == {("replay", "0"): 17, ("replay", "1"): 5}
    offsets = {s.labels["partition"]: s.value for s in families["waypost_recovery_next_offset"].samples}
    assert offsets == {"0": 17, "1": 25}


def test_commands_are_counted_by_type_and_outcome(metrics: Metrics) -> None:
    metrics.applied(
        0,
        batch(
            command(0, EventType.CREATE, CREATE, "same"),
            command(1, EventType.CREATE, CREATE, "same"),
            command(2, EventType.CREATE, b"{}"),
            command(3, EventType.PIN, b'{"checkpoint_id": "session:1"}'),
            command(4, "waypost.session.destroy", b"{}"),
            Record(5, b"no headers"),
        ),
    )
    assert samples(metrics, "waypost_commands_total") == {
        ("checkpoint.create", "accepted"): 1,
        ("checkpoint.create", "duplicate"): 1,
        ("checkpoint.create", "rejected"): 1,
        ("checkpoint.pin", "accepted"): 1,
        ("other", "rejected"): 2,
    }
    assert samples(metrics, "waypost_rejected_commands_total") == {
        ("invalid-body",): 1,
        ("unsupported-type",): 1,
        ("invalid-envelope",): 1,
    }
    assert value(metrics, "waypost_batch_commands_sum") == 6


def test_an_expiry_counts_the_checkpoints_that_it_removes(metrics: Metrics) -> None:
    idle, active = b'{"idle_since":"2027-01-15T07:59:59Z"}', b'{"idle_since":"1970-01-01T00:00:00Z"}'
    metrics.applied(
        0,
        batch(
            command(0, EventType.CREATE, CREATE, age_ms=2_000),
            command(1, EventType.CREATE, CREATE, age_ms=2_000),
            command(2, EventType.EXPIRE, active),
            command(3, EventType.EXPIRE, idle),
        ),
    )
    assert samples(metrics, "waypost_commands_total") == {
        ("checkpoint.create", "accepted"): 2,
        ("session.expire", "kept"): 1,
        ("session.expire", "accepted"): 1,
    }
    assert value(metrics, "waypost_expired_checkpoints_total") == 2


def test_types_that_agents_invent_share_one_series_and_are_not_remembered(metrics: Metrics) -> None:
    for number in range(50):
        metrics.applied(0, batch(command(number, f"made.up.{number}", b"{}")))
    assert samples(metrics, "waypost_commands_total") == {("other", "rejected"): 50}
    assert len(metrics._kept) < 50
    assert metrics._commands.seen == {(None, EventType.REJECTED.wire): 50}


def test_end_to_end_latency_is_counted_per_command(metrics: Metrics) -> None:
    ages = (3, 3, 40, 40, 40, 100_000_000, -2000)  # a clock that is behind the broker's counts as no time
    records = [command(n, EventType.CREATE, CREATE, age_ms=age) for n, age in enumerate(ages)]
    metrics.emitted(0, batch(*records), 0.001)
    buckets = samples(metrics, "waypost_end_to_end_seconds_bucket")
    assert buckets["0.0025",] == 1
    assert buckets["0.005",] == 3
    assert buckets["0.05",] == 6
    assert buckets["1800.0",] == 6
    assert buckets["+Inf",] == 7
    assert value(metrics, "waypost_end_to_end_seconds_count") == 7
    assert value(metrics, "waypost_end_to_end_seconds_sum") == pytest.approx(100_000.126)


def test_each_command_counts_with_its_own_stamp_wherever_that_changes(metrics: Metrics) -> None:
    ages = [40] * 20 + [3] * 20 + [2]
    metrics.emitted(
        0, batch(*(command(n, EventType.CREATE, CREATE, age_ms=age) for n, age in enumerate(ages))), 1
    )
    buckets = samples(metrics, "waypost_end_to_end_seconds_bucket")
    assert [buckets[bound,] for bound in ("0.001", "0.0025", "0.005", "0.025", "0.05")] == [0, 1, 21, 21, 41]
    assert value(metrics, "waypost_end_to_end_seconds_sum") == pytest.approx(0.862)


def test_results_that_were_only_compared_do_not_count_as_emitted(metrics: Metrics) -> None:
    whole = batch(*(command(n, EventType.CREATE, CREATE) for n in range(4)))
    metrics.emitted(0, whole._replace(results=whole.made[3:]), 0.001)
    assert value(metrics, "waypost_end_to_end_seconds_count") == 1


SLOW = SlowBatchError(TimedOutError("Postgres: canceled", "statement_timeout"), Suspects(7, 7, 7, 1))


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (None, "released"),
        (RenewalDueError("x"), "renewal"),
        (FencedError("x"), "fenced"),
        (UnavailableError("x"), "unavailable"),
        (RefusedError("x"), "refused"),
        (ForeignWriterError("x"), "foreign_writer"),
        (StuckError("x"), "stuck"),
        (OwnerError("x"), "error"),
        (UnexpectedError(TypeError("x")), "error"),
        (FailingCommandError(3, 7, 3, UnexpectedError(TypeError("x"))), "refused"),
        (SLOW, "unavailable"),
        (SlowCommandError(3, 7, 3, SLOW), "refused"),
    ],
)
def test_terms_end_for_a_reason(metrics: Metrics, why: OwnerError | None, reason: str) -> None:
    metrics.ended(3, why, 1)
    found = samples(metrics, "waypost_terms_ended_total")
    # All are there from the beginning, at 0: rate and increase know nothing of a counter's first value.
    assert set(found) == {*((reason,) for reason in REASONS)}
    assert {labels for labels, times in found.items() if times} == {(reason,)}
    assert value(metrics, "waypost_refused_partitions") == (1 if reason == "refused" else 0)


def test_a_partition_that_went_elsewhere_leaves_no_series(metrics: Metrics) -> None:
    for partition in (0, 1):
        metrics.lag(partition, 7, 0)
        metrics.applied(partition, batch(command(0, EventType.CREATE, CREATE)))
        metrics.ended(partition, RefusedError("x"), 1)
        metrics.open_transaction(partition, 3.0)
    metrics.assignment(frozenset({1}))
    for name in ("waypost_lag_commands", "waypost_record_age_seconds", "waypost_open_transaction_seconds"):
        assert set(samples(metrics, name)) == {("1",)}
    assert value(metrics, "waypost_assigned_partitions") == 1
    assert value(metrics, "waypost_refused_partitions") == 1


def test_the_record_age_is_that_of_the_newest_command_until_caught_up(metrics: Metrics) -> None:
    old = [command(n, EventType.CREATE, CREATE, age_ms=age) for n, age in enumerate((9000, 4000))]
    metrics.applied(0, batch(*old))
    assert value(metrics, "waypost_record_age_seconds", "0") == pytest.approx(4)
    metrics.lag(0, 0, 2)
    assert value(metrics, "waypost_record_age_seconds", "0") == 0


def test_acquiring_repeatedly_is_not_progress() -> None:
    now = NOW
    metrics = Metrics(lambda: now)
    term = acquired()

    def last() -> float:
        return value(metrics, "waypost_last_progress_timestamp_seconds", "0")

    for _ in range(3):
        metrics.acquired(0, term, 0.1)
        now += 100
        metrics.ended(0, UnavailableError("x"), 1)
    assert last() == NOW
    metrics.applied(0, batch(command(0, EventType.CREATE, CREATE)))
    assert last() == NOW + 300
    metrics.assignment(frozenset())
    now += 100
    metrics.acquired(0, term, 0.1)
    assert last() == NOW + 400, "it went elsewhere and came back"


def partitions(metrics: Metrics) -> tuple[float, ...]:
    """How many are owned, refused and failing."""
    return tuple(value(metrics, f"waypost_{kind}_partitions") for kind in ("owned", "refused", "failing"))


def test_a_partition_whose_owner_fails_counts_as_failing_until_it_recovered(metrics: Metrics) -> None:
    metrics.acquired(0, acquired(), 0.1)
    metrics.lag(0, 8, 7)
    bug = UnexpectedError(TypeError("x"), Suspects(7, 7, 9, 3))
    for _ in range(3):
        metrics.acquired(1, acquired(), 0.1)
        metrics.lag(1, 5, 7)
        metrics.ended(1, bug, 5)
        assert partitions(metrics) == (1, 0, 1)
        metrics.acquired(1, acquired(), 0.1)
        assert partitions(metrics) == (1, 0, 1), "an alert would end each time it is tried again"
    assert value(metrics, "waypost_lag_commands", "1") == 5
    assert value(metrics, "waypost_terms_ended_total", "error") == 3
    metrics.applied(1, batch(command(0, EventType.CREATE, CREATE)))
    assert partitions(metrics) == (2, 0, 0)
    metrics.ended(1, bug, 5)
    metrics.lag(1, 0, 9)
    assert partitions(metrics) == (1, 0, 1), "nobody has acquired it"
    metrics.acquired(1, acquired(), 0.1)
    metrics.lag(1, 0, 9)
    assert partitions(metrics) == (2, 0, 0)
    metrics.ended(1, bug, 5)
    metrics.assignment(frozenset({0}))
    assert partitions(metrics) == (1, 0, 0)


def test_a_partition_that_is_refused_at_a_command_shows_its_offset_until_it_recovered(
    metrics: Metrics,
) -> None:
    bug = UnexpectedError(TypeError("x"), Suspects(7, 7, 7, 1))
    metrics.ended(1, bug, 5)
    metrics.ended(1, FailingCommandError(1, 7, 3, bug), 30)
    for _ in range(2):
        assert partitions(metrics) == (0, 1, 0)
        assert samples(metrics, "waypost_refused_offset") == {("1",): 7}
        metrics.acquired(1, acquired(), 0.1)
    metrics.ended(1, UnavailableError("Postgres is away"), 5)
    assert partitions(metrics) == (0, 1, 0), "nobody has looked again yet"
    metrics.acquired(1, acquired(), 0.1)
    metrics.applied(1, batch(command(0, EventType.CREATE, CREATE)))
    assert partitions(metrics) == (1, 0, 0)
    assert samples(metrics, "waypost_refused_offset") == {}


def test_reading_on_is_progress_even_if_there_is_nothing_to_apply() -> None:
    now = NOW
    metrics = Metrics(lambda: now)
    metrics.acquired(0, acquired(), 0.1)
    metrics.lag(0, 900, 100)
    now += 100
    metrics.lag(0, 900, 100)
    assert value(metrics, "waypost_last_progress_timestamp_seconds", "0") == NOW
    metrics.lag(0, 800, 200)
    assert value(metrics, "waypost_last_progress_timestamp_seconds", "0") == NOW + 100


def calls(action: Callable[[], object]) -> int:
    """How many Python functions an action calls."""
    count = 0

    def look(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def test_batches_are_kept_for_a_while_only(metrics: Metrics) -> None:
    one = batch(command(0, EventType.CREATE, CREATE))
    most = 0
    for _ in range(100):
        metrics.applied(0, one)
        metrics.emitted(0, one, 0.001)
        most = max(most, len(metrics._kept))
    assert 20 < most < 60
    large = b'{"name": "n", "data": {"x": "%s"}}' % (b"x" * 900_000)
    for wide in (
        batch(*(command(n, EventType.CREATE, CREATE) for n in range(1000))),
        batch(command(0, EventType.CREATE, large)),
    ):
        metrics.applied(0, wide)
        metrics.applied(0, wide)
        assert not metrics._kept, "it would hold the data of its commands"
    assert value(metrics, "waypost_commands_total", "checkpoint.create", "accepted") == 100 + 2 * 1001
    assert value(metrics, "waypost_end_to_end_seconds_count") == 100


def test_kept_values_are_counted_with_the_time_of_their_report() -> None:
    now = NOW
    metrics = Metrics(lambda: now)
    metrics.applied(0, batch(command(0, EventType.CREATE, CREATE, age_ms=4000)))
    metrics.emitted(0, batch(command(0, EventType.CREATE, CREATE, age_ms=4000)), 0.001)
    now += 100
    assert value(metrics, "waypost_record_age_seconds", "0") == pytest.approx(4)
    assert value(metrics, "waypost_last_progress_timestamp_seconds", "0") == NOW
    assert value(metrics, "waypost_end_to_end_seconds_sum") == pytest.approx(4)
    metrics.applied(0, batch(command(1, EventType.CREATE, CREATE)))
    now += 100
    metrics.lag(0, 0, 2)
    assert value(metrics, "waypost_record_age_seconds", "0") == 0, "what was kept came first"
    assert value(metrics, "waypost_last_progress_timestamp_seconds", "0") == NOW + 200


def test_the_cost_is_per_batch_not_per_command(metrics: Metrics) -> None:
    told = {
        count: batch(*(command(n, EventType.CREATE, CREATE) for n in range(count))) for count in (1000, 2000)
    }
    observers = Observers(metrics, Health(60))
    observers.applied(0, told[1000])  # what is looked up once is known from here on
    for one in (
        lambda count: observers.applied(0, told[count]),
        lambda count: observers.emitted(0, told[count], 0.001),
    ):
        # Stamps are looked at in steps, not one by one.
        assert calls(partial(one, 1000)) < 200
        assert calls(partial(one, 2000)) < 300


def test_who_has_nothing_to_say_of_an_event_is_not_called_and_one_that_fails_is_left_out() -> None:
    told: list[str] = []

    class Silent(Health):
        @says_nothing
        def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
            told.append("silent")

    class Failing(Health):
        def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
            told.append("failing")
            raise ValueError

    class Talking(Health):
        def emitted(self, partition: int, batch: AppliedBatch, seconds: float) -> None:
            told.append("talking")

    one = batch(command(0, EventType.CREATE, CREATE))
    observers = Observers(Silent(60), Failing(60), Talking(60))
    observers.emitted(0, one, 0.001)
    observers.emitted(0, one, 0.001)
    assert told == ["failing", "talking", "talking"]
