"""``waypost schema``: the contract as JSON Schema and AsyncAPI files."""

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from waypost_worker.cli.support.options import OutputFlag
from waypost_worker.cli.support.output import DONE, FAILED, CommandError, note, show_rows

app = App(name="schema", help="Write or check the contract as JSON Schema and AsyncAPI files.")
_DEFAULT: Final = Path("schemas/json")


@app.command
def export(
    *,
    directory: Annotated[
        Path, Parameter(help="directory to write to; created if it does not exist")
    ] = _DEFAULT,
    output: OutputFlag = "table",
) -> int:
    """Write one JSON Schema for every command and result, and an AsyncAPI 3
    document.

    For example:

      waypost schema export --directory contract
    """
    from waypost.wire import schema_export

    try:
        written = schema_export.export(directory)
    except OSError as error:
        raise CommandError(f"{directory} can't be written: {error.strerror}") from None
    show_rows([{"file": str(path)} for path in written], output, ("file",))
    note(f"{len(written)} files written to {directory}")
    return DONE


@app.command
def check(
    *,
    directory: Annotated[Path, Parameter(help="directory of the files")] = _DEFAULT,
    output: OutputFlag = "table",
) -> int:
    """Compare the files with this version's models; exit code 1 if they differ.

    For example:

      waypost schema check
    """
    from waypost.wire import schema_export

    problems = schema_export.check(directory)
    good = f"{directory}: {len(schema_export.documents())} files agree with the models"
    show_rows([{"problem": problem} for problem in problems], output, ("problem",), good)
    if problems:
        note(f"write them again with 'waypost schema export --directory {directory}' ('make schemas' here)")
    return FAILED if problems else DONE
