"""Waits between attempts grow to a limit, and start again after progress. A seed repeats their jitter."""

from random import Random

import pytest

from waypost.backoff import Backoff


def waits(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_wait() for _ in range(count)]


def test_waits_double_up_to_the_longest() -> None:
    assert waits(Backoff(0.05, 1.0), 7) == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_waits_grow_by_the_factor() -> None:
    assert waits(Backoff(0.1, 2.0, factor=3), 5) == pytest.approx([0.1, 0.3, 0.9, 2.0, 2.0])


def test_a_reset_starts_again_at_the_first_wait() -> None:
    backoff = Backoff(1, 100)
    waits(backoff, 4)
    backoff.reset()
    assert waits(backoff, 2) == [1, 2]


def test_jitter_multiplies_each_wait_and_does_not_add_up() -> None:
    drawn = waits(Backoff(1, 8, jitter=(0.5, 1.0), random=Random(7)), 6)
    chance = Random(7)
    assert drawn == [wait * chance.uniform(0.5, 1.0) for wait in (1, 2, 4, 8, 8, 8)]


def test_the_same_seed_gives_the_same_waits() -> None:
    assert waits(Backoff(1, 9, random=Random(1)), 20) == waits(Backoff(1, 9, random=Random(1)), 20)
    assert waits(Backoff(1, 9, random=Random(1)), 20) != waits(Backoff(1, 9, random=Random(2)), 20)


def test_without_random_numbers_there_is_no_jitter() -> None:
    assert waits(Backoff(3, 3, jitter=(0.0, 9.0)), 2) == [3, 3]
