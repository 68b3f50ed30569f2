"""docs/cli.md, made from the commands' own help. ``python deploy/reference_cli.py`` writes it, ``--check`` compares."""

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final
from unittest import mock

from waypost_worker.cli.app import COMMANDS, build, main

PAGE: Final = Path(__file__).parent.parent / "docs" / "cli.md"
_HEAD: Final = """# Commands

<!-- Made from the code by `make reference`; change it there. -->

Where a command prints data it takes `-o table|json|jsonl`; with `json` there is only JSON on standard output. In a
table, ids stay on one line, and with `--wide` every row does. Exit codes: 0 done, 1 failed, 2 usage or configuration.
What each flag of a connection means, and its variable and key: [Settings](settings.md).
"""


def help_of(*command: str) -> str:
    """What ``waypost COMMAND --help`` prints on a terminal of 80 columns."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": "80"}), redirect_stdout(out):
        try:
            main([*command, "--help"])
        except SystemExit as ended:
            if ended.code:
                raise
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for listed in COMMANDS.values():
        for name, _, _ in listed:
            children = [one for one in build(name)[name].resolved_commands() if not one.startswith("-")]
            for command in [(name, child) for child in children] or [(name,)]:
                parts.append(f"## waypost {' '.join(command)}\n\n```text\n{help_of(*command)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        raise SystemExit("docs/cli.md is out of date: make reference")
