"""Commands gather before a batch only where others are to be expected meanwhile."""

import pytest

from waypost_worker.partition.batching import AdaptiveLinger


def after(rate: float, batch_seconds: float, seconds: float = 2.0) -> AdaptiveLinger:
    """A pace after commands came evenly at ``rate`` a second, each batch taking ``batch_seconds``."""
    pace, now, done = AdaptiveLinger(0.0), 0.0, 0
    while now < seconds:
        now = max(now, (done + 1) / rate) + pace.pause
        commands = int(now * rate) - done
        done += commands
        pace.took(commands, now, batch_seconds)
        now += batch_seconds
    return pace


def test_nobody_waits_before_the_first_batch() -> None:
    assert AdaptiveLinger(5.0).pause == 0


@pytest.mark.parametrize("rate", [1, 20, 67])
def test_a_rare_command_never_waits_for_others(rate: float) -> None:
    assert after(rate, 0.004).pause == 0


@pytest.mark.parametrize("rate", [400, 1_000, 10_000])
def test_frequent_ones_gather_for_as_long_as_a_batch_takes(rate: float) -> None:
    assert after(rate, 0.004).pause == 0.004


def test_they_never_gather_for_more_than_five_milliseconds() -> None:
    assert after(1_000, 0.3).pause == 0.005


def test_a_large_batch_is_followed_immediately() -> None:
    pace = AdaptiveLinger(0.0)
    for batch in range(1, 100):
        pace.took(2_000, batch * 0.05, 0.05)
    assert pace.pause == 0


def test_a_burst_that_is_over_is_forgotten_within_two_seconds() -> None:
    pace = after(1_000, 0.004)
    pace.took(1, 4.0, 0.004)
    assert pace.pause == 0


def test_a_clock_that_stops_does_no_harm() -> None:
    pace = AdaptiveLinger(1.0)
    pace.took(1, 1.0, 0.0)
    assert pace.pause == 0
