"""The protocol is sound in every interleaving of small worlds, and the model notices each guard that is taken away."""

import pytest
from tests.model.protocol import BUGS, Limits, explore

# For each bug, the smallest world in which it does harm.
HARMED = {
    "commit-without-compare-and-set": Limits(losses=1, claims=1),
    "append-without-epoch-check": Limits(commands=1),
    "tail-read-before-the-fence": Limits(commands=1),
    "position-without-its-command": Limits(claims=2),
    "position-past-results-to-compare": Limits(commands=1, losses=1, claims=2),
    "no-wait-after-a-new-producer-id": Limits(commands=1, new_ids=1),
    "compare-and-set-without-the-producer": Limits(losses=1, new_ids=1, claims=2),
    "no-fence-after-a-lapsed-proof": Limits(losses=1, new_ids=1, claims=2, restorable=3),
}
# Disturbances that the protocol does not survive. docs/model.md and docs/known-limitations.md name them.
HOLES = {
    "a broker that forgets producer epochs just before an append that was checked": (
        Limits(commands=1, forgets=1),
        "the broker forgets producer epochs",
    ),
    "a restore that undoes all that an owner with a new producer id did, while another one waits for it": (
        Limits(losses=1, new_ids=1, claims=2, restorable=4),
        "Postgres loses its last 4 transactions",
    ),
}


@pytest.mark.parametrize(
    "limits",
    [
        Limits(),
        Limits(losses=1, claims=2),
        Limits(new_ids=1, claims=2),
        Limits(commands=1, losses=1),
        Limits(losses=1, new_ids=1, claims=2, restorable=3),
        Limits(commands=1, losses=1, new_ids=1),
    ],
    ids=[
        "crashes",
        "lost commits",
        "a new producer id",
        "lost commits and three owners in turn",
        "a new producer id and a restore to the moment of the owner before",
        "a new producer id, lost commits and three owners in turn",
    ],
)
def test_every_interleaving_is_sound(limits: Limits) -> None:
    outcome = explore(limits)
    assert outcome.violation is None, outcome.path
    assert outcome.states > 1_000


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_each_guard_is_needed(bug: str) -> None:
    assert explore(HARMED[bug]).violation is None
    assert explore(HARMED[bug], bug).violation is not None


@pytest.mark.parametrize("hole", sorted(HOLES))
def test_the_holes_that_are_known_are_found(hole: str) -> None:
    limits, step = HOLES[hole]
    outcome = explore(limits)
    assert outcome.violation is not None
    assert any(step in action for action in outcome.path), outcome.path
