"""Directories that one user keeps from all others, as ssh requires of its keys."""

import os
import stat
from pathlib import Path
from typing import NamedTuple


class Exposure(NamedTuple):
    """A reason why a directory is not private, to follow its name in a message, and the way to change that."""

    problem: str
    remedy: str


def exposure(directory: Path) -> Exposure | None:
    """Return why another user could look into a directory or change what is in it, or None if nobody could.

    Raises:
        OSError: The directory does not exist, or can't be looked at.
    """
    found = directory.stat()
    if found.st_uid != os.geteuid():
        return Exposure(
            f"belongs to another user (id {found.st_uid})",
            "Choose a directory that you own, such as a new one below it, or run as that user",
        )
    if (mode := stat.S_IMODE(found.st_mode)) & (stat.S_IRWXG | stat.S_IRWXO):
        return Exposure(f"is open to other users (mode {mode:o})", f"Run: chmod 700 {directory}")
    return None


def sync_directory(directory: Path) -> None:
    """Make sure that the names of new files survive a loss of power."""
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
