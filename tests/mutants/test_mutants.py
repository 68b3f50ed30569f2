"""The catalogue fits the code, and a few mutants are hunted in every run. ``make mutants`` hunts all of them."""

import re
from collections import Counter

import pytest
from tests.mutants import mutmut
from tests.mutants.catalogue import MUTANTS, named
from tests.mutants.hunting import hunt
from tests.mutants.mutant import Edit, Mutant, StaleEditError, mutated_sources

QUICK = (
    "no-cas",
    "tail-not-read",
    "emission-not-awaited",
    "outbox-dropped-early",
    "position-without-its-command",
    "nothing-suppressed",
    "cache-kept",
)
NEVER = Mutant("never", "none", (Edit("waypost_worker.partition.tail:digest", "no such words", ""),))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    for where, source in mutated_sources(mutant).items():
        if not where.startswith("sql:"):
            compile(source, mutant.name, "exec")


def test_names_are_given_once() -> None:
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


def test_a_mutant_that_no_longer_fits_the_code_is_reported() -> None:
    with pytest.raises(StaleEditError, match="0 times"):
        mutated_sources(NEVER)


@pytest.mark.parametrize("name", QUICK)
def test_a_gross_mutant_is_caught_within_a_few_seeds(name: str) -> None:
    catch = hunt(named(name), seeds=60, jobs=1)
    assert catch.by is not None
    assert catch.as_it_should


# Small changes: see tests.mutants.mutmut.


def test_files_that_mutmut_needs_exist() -> None:
    assert [test for test in mutmut.TESTS if not (mutmut.ROOT / test).is_file()] == []
    named = re.findall(r"tests/\w+/\w+\.py", " ".join(mutmut.EXCEPTED.values()))
    assert [test for test in named if not (mutmut.ROOT / test).is_file()] == []


def test_every_module_of_the_model_is_changed_or_excepted() -> None:
    model = mutmut.ROOT / "schemas" / "waypost" / "model"
    modules = [f"model/{path.stem}" for path in model.glob("*.py") if path.stem != "__init__"]
    assert sorted((*mutmut.MODULES, *mutmut.EXCEPTED)) == sorted(modules)
    page = (mutmut.ROOT / "docs" / "mutation-testing.md").read_text()
    assert [name for name in mutmut.MODULES if f"`{name.removeprefix('model/')}`" not in page] == []


def test_without_a_bug_nothing_is_caught() -> None:
    same = Edit(
        "waypost_worker.partition.emitter:emit",
        "for piece in pieces(made):",
        "for piece in list(pieces(made)):",
    )
    catch = hunt(Mutant("same", "none", (same,), harmless="nothing changed"), seeds=40, jobs=1)
    assert catch.by is None
    assert catch.as_it_should
