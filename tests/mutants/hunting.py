"""Finding out what catches a mutant: seeds of the simulation in processes that have the bug, or named tests."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant, StaleEditError, apply, mutated_sources
from tests.simulation.run import Outcome, run_seed
from tests.support.processes import begin

ROOT = Path(__file__).parents[2]
MUTANT_VARIABLE = "WAYPOST_TEST_MUTANT"  # read by tests.mutants.plugin
# Of all that the oracle says of a seed, what agents or readers of Postgres would suffer from comes first.
_WORST_FIRST = ("result", "store", "schema", "subscriber", "accepted", "refused", "owner died", "stuck")
_NO_BUG_OF_MEANING = ("TypeError(", "NameError(", "AttributeError(", "UnboundLocalError(")
_TEST_SECONDS = 240
_ALL_TESTS_SECONDS = 1200


@dataclass
class Catch:
    """What became of a mutant.

    ``by`` is the check of the oracle, or the test, that caught it; None where nothing did. ``seed`` replays it,
    ``seeds`` were run until then. ``evidence`` is what the check or test said.
    """

    name: str
    bug: str
    by: str | None
    evidence: str | None
    seed: int | None
    seeds: int
    seconds: float
    harmless: str | None

    @property
    def as_it_should(self) -> bool:
        """Whether a bug was caught, or what is harmless did no harm."""
        return (self.by is None) == (self.harmless is not None)


class UnfitTestsError(Exception):
    """The tests that should catch a mutant do not pass without it, or could not run."""


def hunt(mutant: Mutant, seeds: int, jobs: int) -> Catch:
    """Run the mutant's tests, or seeds from 0 up, until something fails that does not fail without the bug.

    StaleEditError if the mutant does not fit the code any more, or makes it fall over.
    """
    began = time.monotonic()
    mutated_sources(mutant)
    if mutant.tests:
        by, evidence = _hunt_with_tests(mutant)
        return _catch(mutant, by, evidence, None, 0, began)
    for outcome in _failing_seeds(mutant, seeds, jobs):
        _check_that_it_runs(mutant, outcome)
        if not run_seed(outcome.seed).failed:  # this process has no bug
            worst = min(outcome.verdict.problems, key=_severity)
            return _catch(mutant, _check(worst), worst[:300], outcome.seed, outcome.seed + 1, began)
    return _catch(mutant, None, None, None, seeds, began)


def _catch(
    mutant: Mutant, by: str | None, evidence: str | None, seed: int | None, seeds: int, began: float
) -> Catch:
    seconds = round(time.monotonic() - began, 1)
    return Catch(mutant.name, mutant.bug, by, evidence, seed, seeds, seconds, mutant.harmless)


def _begin(mutant: Mutant) -> None:
    begin()
    apply(mutant)


def _failing_seeds(mutant: Mutant, seeds: int, jobs: int) -> Sequence[Outcome]:
    """The first seed that fails, and those that follow it in its round: one may fail without the bug as well."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    failing: list[Outcome] = []
    with context.Pool(jobs, initializer=_begin, initargs=(mutant,), maxtasksperchild=200) as pool:
        for outcome in pool.imap(run_seed, range(seeds), chunksize=4):
            if outcome.failed:
                failing.append(outcome)
            if failing and outcome.seed >= failing[0].seed + 8:
                break
    return failing


def _check_that_it_runs(mutant: Mutant, outcome: Outcome) -> None:
    """A mutant is a bug of meaning: one that does not even run would be caught by anything, and proves nothing."""
    for problem in outcome.verdict.problems:
        if any(error in problem for error in _NO_BUG_OF_MEANING):
            raise StaleEditError(
                f"{mutant.name}: the mutant does not run, bring it up to date: {problem[:300]}"
            )


def _severity(problem: str) -> int:
    starts = [index for index, start in enumerate(_WORST_FIRST) if problem.startswith(start)]
    return starts[0] if starts else len(_WORST_FIRST)


def _check(problem: str) -> str:
    parts = problem.split(":")
    return ":".join(parts[:2]) if problem.startswith(("store", "refused, and store")) else parts[0]


def _hunt_with_tests(mutant: Mutant) -> tuple[str | None, str | None]:
    code, said = run_tests(mutant.tests, mutant.name)
    if code == 0 and " skipped" not in said:
        return None, None
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - (.*))?$", said, re.MULTILINE)
    if code != 1 or failed is None:
        raise UnfitTestsError(f"{mutant.name}: its tests could not run:\n{said[-2000:]}")
    return failed[1].removeprefix("tests/"), failed[2]


def check_tests(mutants: Sequence[Mutant]) -> None:
    """UnfitTestsError unless all tests that are to catch one of these pass without any bug."""
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    if tests:
        code, said = run_tests(tests, None, _ALL_TESTS_SECONDS)
        if code != 0 or " skipped" in said:
            raise UnfitTestsError(f"the tests of the mutants do not pass without a mutant:\n{said[-2000:]}")


def run_tests(tests: Sequence[str], mutant: str | None, seconds: float = _TEST_SECONDS) -> tuple[int, str]:
    """Run tests in a process of their own, with a mutant or without; pytest's exit code, and what it said."""
    environment = {name: value for name, value in os.environ.items() if name != MUTANT_VARIABLE}
    if mutant is not None:
        environment[MUTANT_VARIABLE] = mutant
    command = [sys.executable, "-m", "pytest", "-p", "tests.mutants.plugin", "-p", "no:cacheprovider"]
    try:
        ran = subprocess.run(
            [*command, "-x", "-q", "--tb=line", *tests],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnfitTestsError(f"{mutant}: its tests did not end within {seconds:g} s: {tests}") from None
    return ran.returncode, ran.stdout + ran.stderr
