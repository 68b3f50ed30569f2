"""Imports between modules: no cycle, and none that a package's docstring does not state.

``lint-imports`` checks the floors. Here, lazy imports and those of type checkers count as well.
"""

import importlib
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

ROOTS = ("waypost", "waypost_worker")


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*ROOTS, exclude_type_checking_imports=False)


def packages() -> list[str]:
    return sorted(name for name in graph().modules if name not in ROOTS and graph().find_children(name))


def test_no_modules_import_each_other() -> None:
    imports = {name: graph().find_modules_directly_imported_by(name) for name in graph().modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"an import cycle: {' <- '.join(error.args[1])}")


def statement(package: str) -> str:
    """Return the sentence of a package's docstring on its imports, up to what it must not import."""
    text = " ".join((importlib.import_module(package).__doc__ or "").split())
    found = re.search(r"May import (.+?)(?:\.(?: |$)|;| but | and nothing | and no | and knows )", text)
    assert found is not None, f"{package} does not state what it may import"
    return found[1]


def imported(package: str) -> set[str]:
    """Return the packages and modules outside of a package that it imports: as near to it as possible, and whole."""
    inside = {package, *graph().find_descendants(package)}
    names = {name for module in inside for name in graph().find_modules_directly_imported_by(module)} - inside
    parents = [part for part in (package.rpartition(".")[0],) if part not in ROOTS]

    def unit(name: str) -> str:
        parent = next((each for each in parents if name.startswith(f"{each}.")), name.partition(".")[0])
        return ".".join(name.split(".")[: parent.count(".") + 2])

    return {unit(name) for name in names}


@pytest.mark.parametrize("package", packages())
def test_a_package_states_what_it_imports(package: str) -> None:
    root = package.partition(".")[0]
    stated = statement(package)
    names = {re.sub(r"^(?!waypost)", f"{root}.", name) for name in re.findall("``([a-z_.]+)``", stated)}
    # A package of the service may name parts of the library: ``model`` is waypost.model there.
    names = {name if name in graph().modules else name.replace("_worker", "") for name in names}
    if re.search("everything|the rest of", stated):
        assert names <= graph().modules
        return
    found = imported(package)
    assert names <= found, "named, and not imported"
    found = {name for name in found if name.partition(".")[0] == root}
    if "the modules next to them" in stated:
        found = {name for name in found if name in names or graph().find_children(name)}
    assert found - names == set(), "imported, and not named"
