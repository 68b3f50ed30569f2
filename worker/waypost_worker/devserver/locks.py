"""Advisory file locks: which process may use a directory, and which one prepares the cache.

Owns flock, the scratch directories used under it, and the owner's process id inside the lock file. Knows nothing about
servers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError

RETRY_SECONDS = 0.05
LOCK_NAME = ".lock"


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for its current holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yield an empty directory `path`, which is removed afterward; anything that a killed process left there is removed
    first.

    The caller holds a lock on it.
    """
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class DirectoryLock:
    """The right to run servers on one directory.

    A server's supervisor and the server itself inherit `fd`, and with it the lock: it is free only
    when every process that could still write to the directory has ended.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The locked file descriptor, to be inherited by the server's processes."""
        if self._fd is None:
            raise RuntimeError("the directory is not locked")
        return self._fd

    @property
    def held(self) -> bool:
        """Return whether this object holds the lock."""
        return self._fd is not None

    def acquire(self, patience: float) -> None:
        """Take the lock.

        Take the lock. If the last owner has died, its servers may still be shutting down: wait up to `patience` seconds
        for them.

        Raises:
            DevServerError: a living process uses the directory, or the wait was in vain.
        """
        if self._fd is not None:
            return
        _close_to_others(self._directory)
        fd = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + patience
            while not _try_lock(fd):
                owner = _owner(fd)
                if owner is not None and _alive(owner):
                    raise DevServerError(
                        f"{self._directory} is in use by process {owner}. Nothing was changed. "
                        "Stop that process, or choose another directory."
                    )
                if time.monotonic() > deadline:
                    raise DevServerError(
                        f"{self._directory} is still in use by servers whose owner has ended. "
                        f"They did not stop within {patience:g} s. Nothing was changed. "
                        "End them, or choose another directory."
                    )
                time.sleep(RETRY_SECONDS)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give the lock up; without effect where it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _close_to_others(directory: Path) -> None:
    """Create `directory`, or check that it is ours, and leave it open to nobody else.

    Raises:
        Raise DevServerError if the directory belongs to another user, or contains files that are not from our servers.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise DevServerError(
            f"{directory} belongs to another user (id {found.st_uid}), who could change its contents. "
            f"Nothing was changed. Choose another directory, or run: chown -R {os.geteuid()} {directory}"
        )
    if not stat.S_IMODE(found.st_mode) & 0o077:
        return
    # Closing a directory such as /tmp or /srv to everybody else is not what anyone asked for.
    if not _is_ours(directory / LOCK_NAME) and any(directory.iterdir()):
        raise DevServerError(
            f"{directory} is open to other users and holds other files. Nothing was changed. "
            f"Choose a new directory, or, if only you need this one, run: chmod 700 {directory}"
        )
    directory.chmod(0o700)


def _is_ours(path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
