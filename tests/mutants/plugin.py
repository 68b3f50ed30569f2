"""A plugin of pytest (``-p tests.mutants.plugin``) that puts the mutant named in the environment into the run."""

import os

from tests.mutants.catalogue import named
from tests.mutants.hunting import MUTANT_VARIABLE
from tests.mutants.mutant import apply


def pytest_configure() -> None:
    """Before anything is collected."""
    if name := os.environ.get(MUTANT_VARIABLE):
        apply(named(name))
