"""Files that belong to this user alone."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from waypost.errors import SpoolError


def create_private(path: Path) -> BinaryIO:
    """Open a file for writing, empty and closed to other users."""
    flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o600), "wb")


def require_own(path: Path) -> None:
    """Raise SpoolError unless this is a plain file of this user."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise SpoolError(
            f"{path.name} is not a file of this user (its owner has the id {found.st_uid}). Remove it"
        )
