"""Which spools of a directory belong to whom: one for each living publisher, and those of the dead.

A publisher holds a lock on a file next to its spool, which the system releases no matter how the process ends. A spool
that is not locked belongs to nobody: the next publisher for the same topic takes it over and sends it first, the oldest
before the newer. The numbers in the names are the order in which the publishers were created.
"""

import fcntl
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from waypost.errors import SpoolError
from waypost.private_directory import exposure, sync_directory
from waypost.publisher.spool.log import DRAFT_SUFFIX, LOG_SUFFIX, WATERMARK_SUFFIX, Log

log = logging.getLogger("waypost")
_LOCK_SUFFIX: Final = ".lock"
_SQLITE_SUFFIX: Final = ".spool"  # of version 0.1


class _Lock:
    """An advisory lock on a separate file, held until it is released or the process dies."""

    def __init__(self, path: Path, *, wait: bool) -> None:
        self.path = path
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
    # The lock belongs to every process that holds the file open. A child that kept it would keep a dead parent's spool
    # from being drained.
    for lock in list(_locks):
        lock.release()


os.register_at_fork(after_in_child=_let_go)


@dataclass(slots=True)
class SpoolClaim:
    """The spools of one publisher: its ``own``, and those ``left`` by dead ones, oldest first."""

    directory: Path
    own: Log
    left: list[Log]
    locks: dict[Log, _Lock] = field(default_factory=dict)

    def give_up(self, spool: Log) -> None:
        """Close a spool. It is removed if nothing in it has to be sent; otherwise the next publisher takes it over.

        Raises:
            OSError: Its files can't be removed.
        """
        lock = self.locks.pop(spool)
        try:
            if spool.live:
                spool.close()
            else:
                with _alone(self.directory):
                    spool.remove()
                    lock.path.unlink(missing_ok=True)
        finally:
            lock.release()


def claim(directory: Path, topic: str, source: bytes, *, segment_bytes: int) -> SpoolClaim:
    """Create our own spool in ``directory``, and take over those without an owner.

    Raises:
        SpoolError: The directory can't be used, or another user could look into it or change what is in it. A spool of
            a dead publisher that can't be read is left and logged.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (found := exposure(directory)) is not None:
            raise SpoolError(
                f"The spool directory {directory} {found.problem}. Nothing was read from it. {found.remedy}"
            )
        with _alone(directory):
            locks = {number: lock for number in _left(directory) if (lock := _locked(directory, number))}
            number = max(_numbers(directory, ""), default=0) + 1
            lock = _Lock(_lock_path(directory, number), wait=False)
            try:
                own = Log(directory, number, topic, source, segment_bytes)
                own.start()
                sync_directory(directory)
            except BaseException:
                for each in (lock, *locks.values()):
                    each.release()
                raise
    except OSError as error:
        raise SpoolError(f"the spool directory {directory} can't be used: {error}") from error
    claimed = SpoolClaim(directory, own, [], {own: lock})
    for number, lock in locks.items():
        if (spool := _opened(directory, number, topic, segment_bytes)) is None:
            lock.release()
            continue
        claimed.locks[spool] = lock
        if spool.live or spool.damaged:
            claimed.left.append(spool)
            continue
        try:
            claimed.give_up(spool)
        except OSError as error:
            log.error("A spool with nothing left to send can't be removed: %s", error)
    return claimed


def _opened(directory: Path, number: int, topic: str, segment_bytes: int) -> Log | None:
    """Return a spool without an owner; None if it is not one that we can send."""
    try:
        if (old := directory / f"{number:012d}{_SQLITE_SUFFIX}").exists():
            from waypost.publisher.spool.sqlite import convert  # brings sqlite3, which nobody else needs

            convert(old)
        for draft in directory.glob(f"{number:012d}-*{DRAFT_SUFFIX}"):
            draft.unlink()  # of a publisher that died while it wrote it
        spool = Log.open(directory, number, segment_bytes)
    except (SpoolError, OSError) as error:
        log.error(
            "The spool of a dead publisher in %s can't be sent, and is kept: %s",
            directory / f"{number:012d}",
            error,
        )
        return None
    if spool.live and spool.topic != topic:
        spool.close()
        return None
    return spool


def _left(directory: Path) -> list[int]:
    suffixes = LOG_SUFFIX, _SQLITE_SUFFIX, WATERMARK_SUFFIX, _LOCK_SUFFIX
    return sorted({number for suffix in suffixes for number in _numbers(directory, suffix)})


def _numbers(directory: Path, suffix: str) -> list[int]:
    """The numbers of publishers in the names of files that end so."""
    names = (path.name for path in directory.glob(f"{'[0-9]' * 12}*{suffix}"))
    return [int(name[:12]) for name in names]


def _lock_path(directory: Path, number: int) -> Path:
    return directory / f"{number:012d}{_LOCK_SUFFIX}"


def _locked(directory: Path, number: int) -> _Lock | None:
    """The lock of a spool; None if a publisher that lives has it."""
    try:
        return _Lock(_lock_path(directory, number), wait=False)
    except BlockingIOError:
        return None


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    lock = _Lock(directory / "directory.lock", wait=True)
    try:
        yield
    finally:
        lock.release()
