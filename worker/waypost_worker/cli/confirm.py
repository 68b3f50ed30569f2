"""Asking before something is dropped."""

import sys

from waypost_worker.cli.output import CommandError, note


def confirm(what: str, yes: bool) -> None:
    """Ask at a terminal, unless ``yes``; CommandError if the answer is no. A script has said what it wants."""
    if yes or not sys.stdin.isatty():
        return
    note(f"{what[:1].upper()}{what[1:]}. Go on? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed")
