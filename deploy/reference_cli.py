"""The help of every command, as the site's page on commands shows it. The site is built with it: `make docs`."""

import io
import os
from contextlib import redirect_stdout
from unittest import mock

from waypost_worker.cli.app import COMMANDS, build, main


def help_of(*command: str) -> str:
    """Return what ``waypost COMMAND --help`` prints on a terminal of 80 columns."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}), redirect_stdout(out):
        try:
            main([*command, "--help"])
        except SystemExit as ended:
            if ended.code:
                raise
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def commands() -> list[tuple[str, ...]]:
    """Return every command that does something, as the words that call it, in the order of ``waypost --help``."""
    found: list[tuple[str, ...]] = []
    for listed in COMMANDS.values():
        for name, _, _ in listed:
            children = [one for one in build(name)[name].resolved_commands() if not one.startswith("-")]
            found += [(name, child) for child in children] or [(name,)]
    return found


def sections() -> str:
    """Return a section for each command."""
    return "\n".join(
        f"## waypost {' '.join(command)}\n\n```text\n{help_of(*command)}\n```\n" for command in commands()
    )
