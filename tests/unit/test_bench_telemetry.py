"""What `tests.tools.bench.telemetry` makes of turns: a cost that is there is found, one that is not is not made up."""

import random

import pytest
from tests.tools.bench.telemetry import Turn, cost, paired


def turns(added: float, inside: int, count: int = 400) -> list[Turn]:
    """In pairs, on a machine whose speed changes slowly and that now and then stands still for a turn."""
    chance = random.Random(7)
    made: list[Turn] = []
    for number in range(count):
        slow = 1 + 0.3 * (number % 50) / 50
        for on in chance.sample((True, False), 2):
            spent = (
                30_000 * 500 * slow * chance.gauss(1, 0.05) * (1 + added * on) * chance.choice([1] * 49 + [9])
            )
            made.append((on, round(spent), 500, 3, inside * on))
    return made


@pytest.mark.parametrize("added", [0.0, 0.02, 0.1])
def test_the_interval_holds_what_telemetry_adds(added: float) -> None:
    found = cost("x", paired(turns(added, 0)), 1_000)
    assert found.pairs == 400
    assert found.lowest <= added <= found.highest
    assert found.highest - found.lowest < 0.03


def test_the_stopwatch_costs_little_compared_with_a_run_without_it() -> None:
    pairs = [((True, 31_000, 10, 2, 1_200), (False, 30_000, 10, 2, 200))]
    found = cost("x", pairs, 10)
    assert (found.inside, found.cpu_us_without, found.commands_in_a_batch) == (0.0333, 3.0, 5.0)
    assert found.added == found.lowest == found.highest == 0.0333


def test_a_turn_without_its_other_and_one_without_commands_count_for_nothing() -> None:
    on, off, idle = (True, 5, 1, 1, 0), (False, 4, 1, 1, 0), (False, 4, 0, 0, 0)
    assert paired([off, on, on, idle, on]) == [(on, off)]
