"""Which spool files of a directory belong to whom: one for each living publisher, and those of the dead.

A publisher holds a lock on a file beside its spool, which the system releases however the process ends. What is
not locked belongs to nobody: the next publisher for the same topic takes it over and sends it first, the
oldest before the newer. Where none is made for a while, one that lives does (:meth:`SpoolClaim.newly_left`). The
numbers in the names are the order in which the publishers were made.
"""

import fcntl
import logging
import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from waypost.errors import SpoolError
from waypost.publisher.spool.file import SpoolFile

log = logging.getLogger("waypost")
_SUFFIX: Final = ".spool"
_FILES: Final = ("", "-wal", "-shm")
#: Instead of the suffix of a spool, once all but damaged rows of it is in Kafka. Nobody takes such a file over.
_DAMAGED: Final = ".damaged"


class _Lock:
    """An advisory lock on a file of its own, held until it is released or the process dies."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        self.path = path
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(self._fd)
            raise
        _locks.add(self)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            _locks.discard(self)


_locks: weakref.WeakSet[_Lock] = weakref.WeakSet()


def _let_go() -> None:
    # The lock belongs to whoever holds the file open. A child that kept it would keep a dead parent's spool
    # from being drained.
    for lock in list(_locks):
        lock.release()


os.register_at_fork(after_in_child=_let_go)


@dataclass(slots=True)
class SpoolClaim:
    """The spool files of one publisher: its ``own``, and those ``left`` by dead ones, oldest first."""

    directory: Path
    own: SpoolFile
    left: list[SpoolFile]
    locks: dict[SpoolFile, _Lock] = field(default_factory=dict)
    _not_ours: set[Path] = field(default_factory=set)
    _ownerless: dict[Path, float] = field(default_factory=dict)  # since when, as far as we saw

    def newly_left(self, after: float) -> SpoolFile | None:
        """The oldest spool that has belonged to nobody for ``after`` seconds, now ours; None if there is none.

        To be called again and again, for what is seen now counts at the next look. Waits for nobody: while
        another publisher looks at the directory, nothing is found.

        Raises:
            SpoolError: the directory can't be read.
        """
        try:
            others = [path for path in _spools(self.directory) if path != self.own.path]
            if not others:
                self._ownerless.clear()
                return None
            with _alone(self.directory, wait=False):
                return self._long_left(others, after)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SpoolError(f"the spool directory {self.directory} can't be read: {error}") from error

    def _long_left(self, others: list[Path], after: float) -> SpoolFile | None:
        now, known, self._ownerless = monotonic(), self._ownerless, {}
        for path in others:
            if path in self._not_ours or not path.exists() or (lock := self._locked(path)) is None:
                continue
            since = known.get(path, now)
            if now - since >= after and (file := self._take_over(path, lock)) is not None:
                return file
            self._ownerless[path] = since
            lock.release()
        return None

    def take_all(self, others: list[Path]) -> None:
        """What others left is ours from now on."""
        for path in others:
            if (lock := self._locked(path)) is not None:
                if (file := self._take_over(path, lock)) is not None:
                    self.left.append(file)
                else:
                    lock.release()

    def _locked(self, path: Path) -> _Lock | None:
        """The lock of a spool; None if somebody has it: another publisher that lives, or we."""
        try:
            return _Lock(path.with_suffix(".lock"), wait=False)
        except BlockingIOError:
            return None

    def _take_over(self, path: Path, lock: _Lock) -> SpoolFile | None:
        """The file, with its lock; None if it is none that we can send."""
        try:
            _require_own(path)
            file = SpoolFile(path)
        except SpoolError as error:
            log.error("what a publisher left in %s can't be sent, and is kept: %s", path, error)
            self.pass_over(path)
            return None
        if file.topic != self.own.topic:
            file.close()
            self.pass_over(path)
            return None
        self.locks[file] = lock
        return file

    def pass_over(self, path: Path) -> None:
        """Don't try to take this one over again."""
        self._not_ours.add(path)

    def give_up(self, file: SpoolFile, *, empty: bool) -> None:
        """Close a file. If it is ``empty`` it is removed, else the next publisher takes it over.

        One that holds nothing but damaged rows is renamed and kept.
        """
        lock = self.locks.pop(file)
        try:
            file.close()
            if empty:
                with _alone(self.directory):
                    if file.holds_damaged:
                        _keep_damaged(file.path)
                    else:
                        for suffix in _FILES:
                            file.path.with_name(file.path.name + suffix).unlink(missing_ok=True)
                    lock.path.unlink(missing_ok=True)
        finally:
            lock.release()


def claim(directory: Path, topic: str, source: bytes, *, fsync: bool) -> SpoolClaim:
    """Make a spool of our own in ``directory``, and take over those that nobody holds any more.

    Raises:
        SpoolError: the directory can't be used, or another user could change what is in it. An old spool that can't
            be read is left and logged.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_private(directory)
        with _alone(directory):
            for draft in directory.glob(f"*{_SUFFIX}.new*"):
                draft.unlink()  # of a publisher that died while it made its file
            names = _spools(directory)
            last = int(names[-1].stem) if names else 0
            path = directory / f"{last + 1:012d}{_SUFFIX}"
            lock = _Lock(path.with_suffix(".lock"), wait=False)
            try:
                SpoolFile.make(path, topic, source)
                own = SpoolFile(path, fsync=fsync)
            except BaseException:
                lock.release()
                raise
            claimed = SpoolClaim(directory, own, [], {own: lock})
            claimed.take_all(names)
            return claimed
    except OSError as error:
        raise SpoolError(f"the spool directory {directory} can't be used: {error}") from error


def _require_private(directory: Path) -> None:
    """SpoolError if another user could have put commands into the directory, or could take some away."""
    found = directory.stat()
    if found.st_uid != os.geteuid():
        raise SpoolError(
            f"The spool directory {directory} belongs to another user (id {found.st_uid}). Nothing was read from it. "
            "Choose a directory of your own, such as a new one below it"
        )
    if stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise SpoolError(
            f"The spool directory {directory} is writable by other users. Nothing was read from it. "
            f"Run: chmod 700 {directory}"
        )


def _require_own(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise SpoolError(f"it is not a file of this user (its owner has the id {found.st_uid}). Remove it")


def _keep_damaged(path: Path) -> None:
    kept = path.with_suffix(_DAMAGED)
    number = 0
    while kept.exists():  # numbers of spools come again once all of them are sent
        number += 1
        kept = path.with_suffix(f".{number}{_DAMAGED}")
    for suffix in _FILES:
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(kept.with_name(kept.name + suffix))
    log.error("what could not be sent of the spool %s is kept in %s", path, kept)


def _spools(directory: Path) -> list[Path]:
    """The spools of a directory, oldest first."""
    return sorted(path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())


@contextmanager
def _alone(directory: Path, *, wait: bool = True) -> Iterator[None]:
    lock = _Lock(directory / "directory.lock", wait=wait)
    try:
        yield
    finally:
        lock.release()
