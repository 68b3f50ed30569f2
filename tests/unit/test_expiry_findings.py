"""What ``waypost doctor`` says of idle sessions, by how many there are and when an expiry last ran."""

from datetime import timedelta

import pytest

from waypost_worker.operations.expiry import ExpiryRun, idle_finding

DAY = timedelta(days=1)


def run(prefix: str = "", idle: timedelta = 30 * DAY, ago: timedelta = timedelta(hours=5)) -> ExpiryRun:
    return ExpiryRun(prefix, idle, ago, 12, 340)


@pytest.mark.parametrize(
    ("count", "last", "level"),
    [
        (0, None, "ok"),
        (999, None, "ok"),
        (1000, None, "warning"),
        (999, run(), "ok"),
        (1000, run(), "warning"),
        (0, run(ago=40 * DAY), "ok"),
        (1, run(ago=3 * DAY), "ok"),
        (1, run(ago=3 * DAY + timedelta(seconds=1)), "warning"),
        (1, run("acme/", ago=40 * DAY), "ok"),
        (1000, run("acme/"), "warning"),
    ],
)
def test_many_idle_sessions_or_an_expiry_that_stopped_are_a_warning(
    count: int, last: ExpiryRun | None, level: str
) -> None:
    assert idle_finding(count, last).level == level


def test_it_says_how_many_are_idle_by_the_age_of_the_last_run_and_when_that_was() -> None:
    found = idle_finding(1234, run())
    assert found.message == (
        "1,234 or more hold checkpoints and had no command for 30 days; "
        "'waypost expire --idle 30d' ran 5 hours ago and expired 12 sessions"
    )
    assert found.fix.startswith("'waypost expire --idle 30d --dry-run' lists them")


def test_a_run_for_some_sessions_sets_no_age_for_all() -> None:
    found = idle_finding(3, run("acme/", timedelta(hours=12), timedelta(minutes=1)))
    assert found.message == (
        "3 hold checkpoints and had no command for 90 days; "
        "'waypost expire --idle 12h' ran 1 minute ago for those that begin with 'acme/' and expired 12 sessions"
    )


def test_it_says_if_none_ever_ran() -> None:
    message = "0 hold checkpoints and had no command for 90 days; 'waypost expire' never ran"
    assert idle_finding(0, None).message == message


@pytest.mark.parametrize(
    ("idle", "flag"),
    [(0, "0s"), (45, "45s"), (90, "90s"), (120, "2m"), (7200, "2h"), (86_400, "1d"), (604_800, "7d")],
)
def test_an_age_is_shown_as_the_command_line_takes_it(idle: int, flag: str) -> None:
    assert f"--idle {flag}'" in idle_finding(0, run(idle=timedelta(seconds=idle))).message


def test_a_clock_that_was_set_back_is_not_an_error() -> None:
    assert "ran 0 seconds ago" in idle_finding(0, run(ago=timedelta(seconds=-5))).message
