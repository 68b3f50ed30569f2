"""What the log says of owners that fail: enough, once, and nothing without bound."""

from dataclasses import replace

import structlog
from tests.unit.test_failure import raised
from tests.unit.test_metrics import acquired

from waypost_worker.partition.failure import FailingCommandError, UnexpectedError
from waypost_worker.telemetry.observers import FailureLog, LogObserver


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_error_is_logged_once_with_its_traceback_and_then_once_a_minute() -> None:
    clock = Clock()
    observer = LogObserver(FailureLog(clock))
    with structlog.testing.capture_logs() as lines:
        for _ in range(25):
            observer.ended(2, UnexpectedError(raised()), 5)
            clock.now += 5
    assert [line["event"] for line in lines] == ["owner_failed"] * 3
    assert {line["log_level"] for line in lines} == {"error"}
    first, *others = lines
    assert "KeyError: 'secret text'" in first["exception"]
    assert "in raised" in first["exception"]
    assert first["partition"] == 2
    assert [("exception" in line, line["not_logged"]) for line in others] == [(False, 11), (False, 11)]


def test_a_clock_is_reported_once_and_again_if_it_changes() -> None:
    observer = LogObserver()
    with structlog.testing.capture_logs() as lines:
        for ahead in (0.2, 7.26, 7.26, None, None, -90_000.0, 0.0, None):
            observer.acquired(0, replace(acquired(), clock_ahead=ahead), 0.1)
    told = [(line["event"], line.get("seconds_ahead")) for line in lines if line["log_level"] == "warning"]
    assert told == [
        ("clock_differs", 7.3),
        ("results_dated_by_workers", None),
        ("clock_differs", -90_000.0),
        ("results_dated_by_workers", None),
    ]


def test_another_error_or_partition_is_logged_immediately() -> None:
    observer = LogObserver(FailureLog(Clock()))
    with structlog.testing.capture_logs() as lines:
        for error, partition in ((raised(), 1), (TypeError(), 1), (raised(), 2), (raised(), 1)):
            observer.ended(partition, UnexpectedError(error), 5)
        observer.ended(1, None, 0)
        observer.ended(1, UnexpectedError(raised()), 5)
    assert [line["event"] for line in lines] == [*["owner_failed"] * 3, "partition_released", "owner_failed"]
    assert all("exception" in line for line in lines if line["event"] == "owner_failed")


def test_a_refusal_at_a_command_names_the_offset_and_shows_a_traceback_that_was_not_shown_before() -> None:
    observer = LogObserver(FailureLog(Clock()))
    refusal = FailingCommandError(2, 4711, 3, UnexpectedError(raised()))
    with structlog.testing.capture_logs() as lines:
        observer.ended(2, refusal, 30)
        observer.ended(2, refusal, 60)
    assert [line["event"] for line in lines] == ["owner_failed", "partition_refused", "partition_refused"]
    assert {line["offset"] for line in lines[1:]} == {4711}
    assert [line["retry_seconds"] for line in lines[1:]] == [30, 60]


def test_what_is_remembered_and_what_is_logged_of_an_error_is_bounded() -> None:
    failures = FailureLog(Clock())
    with structlog.testing.capture_logs() as lines:
        failures.tell("owner_failed", raised("x" * 1_000_000), 0)
        for number in range(1, 1001):
            failures.tell("owner_failed", raised(), number)
    assert len(lines[0]["exception"]) < 10_000
    assert len(lines) == 1001
    assert len(failures._lines) <= 100
