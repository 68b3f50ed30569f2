"""Advisory file locks: who may use a directory, and who prepares the cache.

Owns flock, the scratch directories used under it, and the owner's process id inside the lock file.
Knows nothing of servers.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waypost_worker.devserver.errors import DevServerError

RETRY_SECONDS = 0.05


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for whoever holds it now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """An empty directory `path` that is removed afterwards; what a killed process left there goes first.

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
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self, patience: float) -> None:
        """Take the lock.

        Where the last owner has died, its servers may still be shutting down: wait up to `patience`
        seconds for them.

        Raises:
            DevServerError: a living process uses the directory, or the wait was in vain.
        """
        if self._fd is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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
