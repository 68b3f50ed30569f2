"""One spool file: accepted commands on the local disk, in a SQLite database of one publisher.

Owns the file's format and its transactions. Knows neither what is in memory nor Kafka, and leaves to
:mod:`waypost.publisher.spool.directory` who may open which file.
"""

import ctypes
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from waypost.errors import SpoolError
from waypost.model.limits import (
    MAX_COMMAND_BYTES,
    MAX_COMMAND_ID,
    MAX_SESSION_ID,
    MAX_TYPE,
    text_problem,
)
from waypost.publisher.pending import Pending
from waypost.statements import load_statement

log = logging.getLogger("waypost")
_FORMAT: Final = 1
_LAST_ROW: Final = 2**63 - 1
_READ_BYTES: Final = 4 * 1024 * 1024
_LONGEST_STAMP: Final = 64  # bytes of a time or a traceparent
_LAST_PARTITION: Final = 2**31 - 1
# A commit appends some 7 KB to the write-ahead log for a command of 1 KB; this keeps the log below 32 MB.
_CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
_COMMIT_BYTES: Final = 6 * 1024
_SHRINK_BYTES: Final = 16 * 1024 * 1024


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Text that is not UTF-8 must not end the reading of all rows: its own row is found to be damaged.
    connection.text_factory = _decoded
    return connection


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _sync_directory(directory: Path) -> None:
    # What is synced into a file is lost with the power all the same, if its name is not on the disk.
    number = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sql(name: str) -> str:
    return load_statement("waypost.publisher.spool", name)


class SpoolFile:
    """Commands by row, in rising order. All methods raise SpoolError if the file can't be read or written.

    ``add`` and ``remove`` may be called from any thread, the rest by one thread. With ``fsync`` what they wrote
    survives a loss of power, without it the death of the process only.
    """

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._since_checkpoint = 0
        self._set_aside = (0, 0)
        with self._explained("opened"):
            self._writing = _connect(path)
            self._reading = self._writing
            try:
                self._check_version()
                self._writing.executescript(_sql("open"))
                if fsync:
                    self._writing.execute(_sql("fsync"))
                self.topic, self.source = self._about()
                (self.holds_damaged,) = self._writing.execute(_sql("damaged")).fetchone()
                self._reading = _connect(path)
            except BaseException:
                self._writing.close()
                raise
        _open_files.add(self)

    @staticmethod
    def make(path: Path, topic: str, source: bytes) -> None:
        """Make an empty file for the commands of one topic and publisher; it is there whole or not at all."""
        draft = path.with_name(path.name + ".new")
        try:
            # What agents publish may be private; SQLite gives its other files the same rights.
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = _connect(draft)
            try:
                connection.executescript(_sql("make") + _sql("open"))
                connection.execute(_sql("introduce"), (topic, source))
            finally:
                connection.close()
            draft.rename(path)
            _sync_directory(path.parent)
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {path} can't be made: {error}") from error

    def _check_version(self) -> None:
        (version,) = self._writing.execute(_sql("version")).fetchone()
        if version != _FORMAT:
            raise SpoolError(
                f"the spool {self.path} has format {version}, and this version of waypost reads {_FORMAT}; it was "
                "left as it is: drain it with the version that wrote it"
            )

    def _about(self) -> tuple[str, bytes]:
        match self._writing.execute(_sql("about")).fetchone():
            case (str() as topic, bytes() as source):
                return topic, source
        raise SpoolError(
            f"the spool {self.path} does not say whose commands it holds, so none were sent; it was left as it is"
        )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise SpoolError(f"the spool {self.path} can't be {what}: {error}") from error

    def add(self, commands: Sequence[Pending]) -> None:
        """Write commands at their ``row``, all or none, in one commit."""
        rows = [
            (
                each.row,
                each.command_id,
                each.command_type,
                each.session_id,
                each.time,
                each.traceparent,
                each.partition,
                each.value,
            )
            for each in commands
        ]
        self._commit("add", rows, _COMMIT_BYTES + sum(each.size for each in commands))

    def remove(self, rows: Sequence[int]) -> None:
        """Remove rows, in one commit; one that is not there counts as removed."""
        self._commit("remove", [(row,) for row in rows], _COMMIT_BYTES * (1 + len(rows) // 3))

    def _commit(self, statement: str, rows: Sequence[tuple[object, ...]], size: int) -> None:
        with self._lock, self._explained("written"):
            self._writing.execute("begin immediate")
            try:
                if len(rows) == 1:
                    self._writing.execute(_sql(statement), rows[0])
                else:
                    self._writing.executemany(_sql(statement), rows)
                self._writing.execute("commit")
            except BaseException:
                if self._writing.in_transaction:
                    self._writing.execute("rollback")
                raise
            self._since_checkpoint += size

    def read(self, after: int, up_to: int = _LAST_ROW, most: int = 500) -> list[Pending]:
        """The first commands behind row ``after``, at most ``most`` and some 4 MB of them.

        Rows before the last of them that are no commands are set aside: see :meth:`take_set_aside`.
        """
        found: list[Pending] = []
        damaged: list[tuple[int, str]] = []
        size = lost = 0
        with self._explained("read"):
            cursor = self._reading.execute(_sql("read"), (MAX_COMMAND_BYTES, after, up_to))
            try:
                for row, *fields, length in cursor:
                    if (problem := _problem(*fields)) is not None:
                        damaged.append((row, problem))
                        lost += length
                        continue
                    command_id, command_type, session, at, traceparent, partition, value = fields
                    one = Pending(command_id, command_type, session, value, at, traceparent, partition)
                    one.row, one.home, one.source = row, self, self.source
                    found.append(one)
                    size += one.size
                    if len(found) >= most or size > _READ_BYTES:
                        break
            finally:
                cursor.close()  # an open cursor would hold up the checkpoint
        if damaged:
            self._move_aside(damaged, lost)
        return found

    def _move_aside(self, damaged: list[tuple[int, str]], size: int) -> None:
        rows = [(row,) for row, _ in damaged]
        with self._lock, self._explained("written"):
            self._writing.execute("begin immediate")
            try:
                self._writing.execute(_sql("set_aside"))
                self._writing.executemany(_sql("set_aside_row"), rows)
                self._writing.executemany(_sql("remove"), rows)
                self._writing.execute("commit")
            except BaseException:
                if self._writing.in_transaction:
                    self._writing.execute("rollback")
                raise
        self.holds_damaged = True
        count, before = self._set_aside
        self._set_aside = (count + len(rows), before + size + len(rows) * _EMPTY.size)
        row, problem = damaged[0]
        log.error(
            "%d rows of the spool %s are not commands and were set aside in it: the first is row %d, whose %s",
            len(rows),
            self.path,
            row,
            problem,
        )

    def take_set_aside(self) -> tuple[int, int]:
        """How many rows, and of what size as :meth:`totals` counts, were set aside since this was asked last."""
        taken, self._set_aside = self._set_aside, (0, 0)
        return taken

    def totals(self) -> tuple[int, int]:
        """How many commands there are, and the bytes that they count for."""
        with self._explained("read"):
            count, size = self._reading.execute(_sql("totals")).fetchone()
        return count, size + count * _EMPTY.size

    def tidy(self, empty: bool) -> None:
        """Move what was written from the log into the database, where it is time for that.

        Most of it while others go on writing. An ``empty`` file that has grown is made small again.
        """
        with self._explained("found"):  # SQLite would go on writing to a file that has no name any more
            grown = self.path.stat().st_size > _SHRINK_BYTES
        if self._since_checkpoint < _CHECKPOINT_BYTES and not (empty and grown):
            return
        with self._explained("written"):
            self._reading.execute(_sql("checkpoint")).fetchall()
            with self._lock:
                if empty and grown:
                    self._writing.execute("vacuum")
                self._writing.execute(_sql("restart")).fetchall()
                self._since_checkpoint = 0

    def close(self) -> None:
        """Close the file; it stays."""
        with self._lock, self._explained("closed"):
            self._reading.close()
            self._writing.close()
        _open_files.discard(self)


_EMPTY: Final = Pending("", "", None, b"", b"")


def _problem(
    command_id: Any, command_type: Any, session: Any, at: Any, traceparent: Any, partition: Any, value: Any
) -> str | None:
    """Why a row can't be a command, or None. Columns of SQLite hold values of any type."""
    for name, text, longest in (
        ("id", command_id, MAX_COMMAND_ID),
        ("type", command_type, MAX_TYPE),
        *((("session", session, MAX_SESSION_ID),) if session is not None else ()),
    ):
        if not isinstance(text, str):
            return f"{name} is a {type(text).__name__}, not a text"
        if (problem := text_problem(text, longest)) is not None:
            return f"{name} {problem}"
    if not isinstance(at, bytes) or len(at) > _LONGEST_STAMP:
        return "time is not a timestamp"
    if traceparent is not None and (not isinstance(traceparent, bytes) or len(traceparent) > _LONGEST_STAMP):
        return "traceparent is not a trace context"
    if (session is None) == (partition is None):
        return "session and partition contradict each other"
    if partition is not None and (not isinstance(partition, int) or not 0 <= partition <= _LAST_PARTITION):
        return "partition is not a partition number"
    if not isinstance(value, bytes):
        return "value is missing, is not bytes or is larger than any command"
    return None


_open_files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    # SQLite forbids to carry a connection over a fork: closing one here could take the log away from the
    # parent. They are never touched in the child, and one more reference keeps them from being collected.
    for file in list(_open_files):
        for connection in (file._reading, file._writing):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_leave_to_the_parent)
