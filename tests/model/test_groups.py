"""Groups of two partitions are sound in every interleaving of small worlds, and the model finds each of their bugs."""

import re
from functools import cache
from pathlib import Path

import pytest
from tests.model.groups import GROUP_BUGS, explore_groups
from tests.model.protocol import Limits
from tests.model.search import Outcome

PAGE = Path(__file__).parents[2] / "docs/model.md"
# One command in each partition. With one claim, nobody takes the partition over; the owner may still die.
OWNED = Limits(commands=1, claims=1)
TAKEN_OVER = Limits(commands=1, claims=2)
BUSY = Limits(commands=2, claims=1)
# For each bug, the smallest world in which it does harm, and the harm.
HARMED = {
    "failed-batch-applied-along-with-another": ((TAKEN_OVER, OWNED), "results of commands below"),
    "commit-answered-for-another-partition": ((TAKEN_OVER, OWNED), "answered and not applied"),
    "append-answered-for-another-partition": ((BUSY, OWNED), "neither answered nor in the outbox"),
    "refused-commit-fails-the-group": ((TAKEN_OVER, OWNED), "although nothing happened to it"),
    "refused-append-fails-the-group": ((TAKEN_OVER, OWNED), "although nothing happened to it"),
    "repeated-commit-without-compare-and-set": ((OWNED, OWNED), "results of commands below"),
    "repeated-append-with-a-new-sequence": ((OWNED, OWNED), "results doubled"),
}
STEPS = [
    "sends both batches in one statement",
    "passes and passes",
    "passes and is refused",
    "is refused and passes",
    "is refused and is refused",
    "passes and passes, and the answer is lost",
    "is rolled back",
    "passes and passes, and an error hides the answer",
    "repeats its batch alone",
    "is refused its repeated batch",
    "does not repeat its batch",
    "sends both results in one request",
    "result lands",
    "result is refused",
    "result is passed over",
    "result is there already",
    "gets both answers",
    "gets no answer, and sends again",
    "gets no answer in time",
    "gets its answer",
]


@cache
def explored(limits: tuple[Limits, Limits]) -> Outcome:
    return explore_groups(limits)


@pytest.mark.parametrize(
    "limits",
    [
        (TAKEN_OVER, TAKEN_OVER),
        (Limits(claims=2), OWNED),
        (BUSY, BUSY),
        (Limits(commands=1, losses=1, claims=2), Limits(commands=1, losses=1, claims=1)),
    ],
    ids=[
        "both are taken over",
        "one is taken over, between two commands",
        "two commands in each",
        "one is taken over, and both lose commits",
    ],
)
def test_every_interleaving_of_groups_is_sound(limits: tuple[Limits, Limits]) -> None:
    outcome = explored(limits)
    assert outcome.violation is None, outcome.path
    assert f"| {outcome.states:,} |" in PAGE.read_text()


@pytest.mark.parametrize("step", STEPS)
def test_a_group_takes_every_step(step: str) -> None:
    assert any(action.endswith(step) for action in explored((TAKEN_OVER, TAKEN_OVER)).actions)


@pytest.mark.parametrize("bug", sorted(GROUP_BUGS))
def test_each_bug_of_groups_is_found(bug: str) -> None:
    limits, harm = HARMED[bug]
    assert explored(limits).violation is None
    found = explore_groups(limits, bug, progress="nothing happened" in harm).violation
    assert found is not None
    assert harm in found


def test_a_member_that_gets_the_outcome_of_another_one_loses_its_term_for_nothing() -> None:
    found = explore_groups((TAKEN_OVER, OWNED), "commit-answered-for-another-partition").violation
    assert found == "partition 1: the term of its owner ended although nothing happened to it"


@pytest.mark.parametrize("limits", [(OWNED, OWNED), (TAKEN_OVER, OWNED), (OWNED, TAKEN_OVER), (BUSY, OWNED)])
def test_the_reduction_leaves_out_states_and_no_step(limits: tuple[Limits, Limits]) -> None:
    full = explore_groups(limits, reduced=False)
    assert full.violation is None
    assert full.states > explored(limits).states
    assert without_workers(full) == without_workers(explored(limits))


def without_workers(outcome: Outcome) -> set[str]:
    """Return the steps that were taken, no matter by which worker: the reduction lets the first one claim first."""
    return {re.sub(r"(^|: )[01]", r"\1worker", action) for action in outcome.actions}
