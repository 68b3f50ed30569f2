"""``waypost schema``: the contract as JSON Schema and AsyncAPI files."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from waypost_worker.cli.output import DONE, FAILED, note

app = App(name="schema", help="The contract as JSON Schema and AsyncAPI 3 files.")
_DEFAULT = Path("schemas/json")


@app.command
def export(*, directory: Annotated[Path, Parameter(help="where to")] = _DEFAULT) -> int:
    """Write the files.

    For example:

      waypost schema export --directory contract
    """
    from waypost import contract

    written = contract.export(directory)
    note(f"{len(written)} files written to {directory}")
    return DONE


@app.command
def check(*, directory: Annotated[Path, Parameter(help="where they are")] = _DEFAULT) -> int:
    """Compare the files with this version's models; exit 1 if they differ.

    For example:

      waypost schema check
    """
    from waypost import contract

    problems = contract.check(directory)
    for problem in problems:
        note(f"{directory}: {problem}")
    if problems:
        note("run 'make schemas' and commit what it writes")
        return FAILED
    note(f"{directory}: {len(contract.documents())} files agree with the models")
    return DONE
