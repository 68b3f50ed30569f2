"""The spool of one publisher: an append-only log in files of some MB, and the watermark next to them.

A file is removed once all its commands are acknowledged or given up, and rewritten once that holds for most of it, so a
command that waits for long does not keep what was published after it. Knows neither what is in memory nor Kafka, and
leaves to :mod:`waypost.publisher.spool.directory` who may open which log. ``write`` and what counts are called under
the buffer's lock, the rest by the spool's thread.
"""

import errno
import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from waypost.errors import SpoolError
from waypost.private_directory import sync_directory
from waypost.publisher.pending import Pending
from waypost.publisher.spool import record
from waypost.publisher.spool.files import create_private, require_own
from waypost.publisher.spool.record import Dropped, Entry, Opening
from waypost.publisher.spool.watermark import Watermark

log = logging.getLogger("waypost")
LOG_SUFFIX: Final = ".log"
WATERMARK_SUFFIX: Final = ".watermark"
#: Instead of the suffix of a file, for what in it is damaged.
DAMAGED_SUFFIX: Final = ".damaged"
DRAFT_SUFFIX: Final = ".new"
_WASTED_SEGMENTS: Final = 4


class Segment:
    """One file of a log: ``size`` bytes, of which ``live`` commands of ``live_bytes`` are neither acknowledged nor
    given up. ``unread`` of these are on the disk alone.
    """

    def __init__(self, owner: "Log", path: Path) -> None:
        self.log = owner
        self.path = path
        self.index = int(path.stem.partition("-")[2])
        self.fd = -1
        self.size = 0
        self.others = 0  # bytes of records that are not commands
        self.live = self.live_bytes = 0
        self.unread = self.unread_bytes = 0
        self.first_row = owner.rows + 1
        self.has_drops = False
        self.broken = False

    def create(self) -> None:
        """Make the file."""
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        _open.add(self)
        self.write(record.of_file(self.log.topic, self.log.source))
        self.others = self.size

    def write(self, data: bytes) -> None:
        """Append, all or nothing: with one system call.

        Raises:
            OSError: Nothing was written. It is ``broken`` if that can't be made sure of.
        """
        end = self.size + len(data)
        try:
            if os.pwrite(self.fd, data, self.size) + self.size < end:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            # An interrupt too: the call says that nothing was accepted, so nothing may come back some day. None is
            # raised between the write and the next line.
            self.broken = True
            os.ftruncate(self.fd, self.size)
            self.broken = False
            raise
        self.size = end

    def read(self, start: int) -> bytes:
        """Return the bytes from ``start`` on."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            parts = []
            while start < self.size and (part := os.pread(fd, self.size - start, start)):
                parts.append(part)
                start += len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file, which stays."""
        self.abandon()
        _open.discard(self)

    def abandon(self) -> None:
        """Close this process's copy of the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def set_aside(self, pieces: Sequence[bytes]) -> None:
        """Keep damaged records in a separate file, and log that."""
        kept = self.path.with_suffix(DAMAGED_SUFFIX)
        try:
            with create_private(kept) as file:
                file.writelines(pieces)
        except OSError as error:
            log.error("Damaged records of the spool %s can't be kept: %s", self.path, error)
        log.error(
            "The spool %s is damaged in %d places. The damaged records are not sent, and are kept in %s. "
            "All others are sent",
            self.path,
            len(pieces),
            kept,
        )


_open: "weakref.WeakSet[Segment | Watermark]" = weakref.WeakSet()


def _leave_to_the_parent() -> None:
    for each in list(_open):
        each.abandon()


os.register_at_fork(after_in_child=_leave_to_the_parent)


class Log:
    """The log of one publisher. ``rows`` is the newest row, ``base`` what is added to one to get a number that counts
    through several logs.
    """

    def __init__(self, directory: Path, number: int, topic: str, source: bytes, segment_bytes: int) -> None:
        self.directory = directory
        self.number = number
        self.topic = topic
        self.source = source
        self.rows = 0
        self.base = 0
        self.segments: list[Segment] = []
        self.retired: list[Segment] = []  # full, and still open
        self.damaged = 0  # places, found when it was opened
        self._dropped: set[int] = set()
        self._segment_bytes = segment_bytes
        self._files = 0
        self._new_names = False
        self.watermark = Watermark(directory / f"{number:012d}{WATERMARK_SUFFIX}")
        _open.add(self.watermark)

    @property
    def live(self) -> int:
        """Return how many commands are neither acknowledged nor dropped."""
        return sum(segment.live for segment in self.segments)

    @property
    def live_bytes(self) -> int:
        """Return how many bytes they take."""
        return sum(segment.live_bytes for segment in self.segments)

    # Writing.

    def start(self) -> None:
        """Make the first file. Raise OSError if that fails."""
        self._rotate()

    def encode(self, accepted: Sequence[Pending]) -> bytes:
        """Return the records of the next commands, and give each its row."""
        row = self.rows
        if len(accepted) == 1:
            (pending,) = accepted
            pending.row = row + 1
            data = record.of_command(pending, row + 1)
            pending.stored = len(data)
            return data
        parts = []
        for more, pending in zip(range(len(accepted) - 1, -1, -1), accepted, strict=True):
            row += 1
            pending.row = row
            parts.append(record.of_command(pending, row, more))
            pending.stored = len(parts[-1])
        return b"".join(parts)

    def write(self, data: bytes, rows: int) -> Segment:
        """Append what :meth:`encode` returned; the file that has it.

        Raises:
            OSError: Nothing was written.
        """
        segment = self.segments[-1]
        if segment.size >= self._segment_bytes or segment.broken:
            segment = self._rotate()
        segment.write(data)
        self.rows += rows
        return segment

    def drop(self, given_up: Sequence[Pending]) -> None:
        """Record that these are not to be sent. Raise OSError if that can't be written."""
        rows = [pending.row for pending in given_up]
        data = record.of_dropped(rows)
        segment = self.segments[-1]
        if segment.size >= self._segment_bytes or segment.broken:
            segment = self._rotate(has_drops=True)
        segment.has_drops = True  # before it is written, so that the thread does not remove the file
        segment.write(data)
        segment.others += len(data)
        self._dropped.update(rows)

    def _rotate(self, *, has_drops: bool = False) -> Segment:
        self._files += 1
        segment = Segment(self, self.directory / f"{self.number:012d}-{self._files:06d}{LOG_SUFFIX}")
        try:
            segment.create()
        except BaseException:
            segment.close()
            with suppress(OSError):
                segment.path.unlink()
            raise
        segment.has_drops = has_drops
        self.retired += [full for full in self.segments[-1:] if full.fd >= 0]
        self.segments.append(segment)
        self._new_names = True
        return segment

    # Reading.

    @classmethod
    def open(cls, directory: Path, number: int, segment_bytes: int) -> "Log":
        """Open a dead publisher's log, and count the commands in it that must be sent.

        Raises:
            SpoolError: It is not a spool that this version can read.
            OSError: It can't be read.
        """
        if (watermark := directory / f"{number:012d}{WATERMARK_SUFFIX}").exists():
            require_own(watermark)
        found = cls(directory, number, "", b"", segment_bytes)
        try:
            for path in sorted(directory.glob(f"{number:012d}-*{LOG_SUFFIX}")):
                require_own(path)
                segment = Segment(found, path)
                segment.size = path.stat().st_size
                segment.broken = True  # what a write left that was cut short may be at its end
                found.segments.append(segment)
                found._files = max(found._files, int(path.stem.partition("-")[2]))
            found._count()
            if found._dropped:
                found._count()  # again, without what was given up in a later record
            if found.segments and not found.topic:
                raise SpoolError("it does not say which topic its commands belong to")
        except BaseException:
            found.close()
            raise
        return found

    def _count(self) -> None:
        self.damaged = 0
        for segment in self.segments:
            segment.live = segment.live_bytes = segment.others = 0
            data = segment.read(0)
            pieces = []
            call = None  # where a call with several commands begins, of which the last is not there yet
            segment.first_row = 0
            for each in record.frames(data):
                said = None if each.head is None else record.meaning(each.head)
                match said:
                    case None:
                        pieces.append(data[each.start : each.end])
                        call = None
                    case Opening(topic, source):
                        self.topic, self.source = topic, source
                        segment.others += each.end - each.start
                    case Dropped(rows):
                        self._dropped.update(rows)
                        segment.has_drops = True
                        segment.others += each.end - each.start
                    case Entry():
                        if said.more and call is None:
                            call = each.start, segment.live, segment.live_bytes
                        elif not said.more:
                            call = None
                        self.rows = max(self.rows, said.row)
                        segment.first_row = segment.first_row or said.row
                        if self.waits(said):
                            segment.live += 1
                            segment.live_bytes += each.end - each.start
            if call is not None:
                segment.size, segment.live, segment.live_bytes = call
            segment.unread, segment.unread_bytes = segment.live, segment.live_bytes
            if pieces:
                segment.set_aside(pieces)
                self.damaged += len(pieces)

    def waits(self, entry: Entry) -> bool:
        """Return whether a command is still to be sent."""
        return entry.row not in self._dropped and not self.watermark.covers(
            entry.row, entry.session_id, entry.partition
        )

    def commands(self, data: bytes) -> Iterator[Pending | bytes]:
        """Yield the commands in some bytes of a file that must be sent, and damaged bytes."""
        for each in record.frames(data):
            said = None if each.head is None else record.meaning(each.head)
            if isinstance(said, Entry):
                if not self.waits(said):
                    continue
                if (pending := record.command(each)) is not None:
                    pending.source = self.source
                    yield pending
                    continue
            elif said is not None:
                continue
            yield data[each.start : each.end]

    # Keeping small.

    def sync(self) -> list[Segment]:
        """Make sure that what was written survives a loss of power; the files for which the disk refused that."""
        failed, full = [], list(self.retired)
        for segment in (*full, *self.segments[-1:]):
            try:
                os.fdatasync(segment.fd)
            except OSError as error:
                # Asked again, the system may say that all is well, though it threw the data away.
                log.error("the spool %s can't be synced to the disk: %s", segment.path, error)
                segment.broken = True
                failed.append(segment)
        self.close_full(full)
        if self._new_names:
            sync_directory(self.directory)
            self._new_names = False
        return failed

    def check(self) -> None:
        """Raise OSError if the current file has lost its name. The next write creates a new one."""
        segment = self.segments[-1]
        try:
            if os.path.samestat(os.fstat(segment.fd), segment.path.stat()):
                return
        except FileNotFoundError:
            pass
        segment.broken = True
        raise FileNotFoundError(f"{segment.path} was removed, with the commands in it")

    def close_full(self, full: Sequence[Segment]) -> None:
        """Close ``retired`` files."""
        for segment in full:
            segment.close()
            self.retired.remove(segment)

    def tidy(self, *, ended: bool, fsync: bool) -> None:
        """Remove files in which nothing has to be sent, and rewrite those in which little has.

        ``ended`` says that nothing more is written.
        """
        full = self.segments[: None if ended else -1]
        wasted = sum(segment.size for segment in full) - self.live_bytes
        much = max(_WASTED_SEGMENTS * self._segment_bytes, self.live_bytes)
        for segment in full:
            # A dropped command comes back if the record about it is removed before the command is.
            needed = segment.has_drops and segment is not self.segments[0]
            if not segment.live and not needed:
                segment.path.unlink(missing_ok=True)
                segment.close()
                self.segments.remove(segment)
                if self.segments:
                    self._forget_dropped(self.segments[0].first_row)
            elif (
                wasted > much
                and not segment.unread
                and 2 * (segment.live_bytes + segment.others) < segment.size
            ):
                self._rewrite(segment, fsync)

    def _forget_dropped(self, before: int) -> None:
        if self._dropped:
            self._dropped = {row for row in list(self._dropped) if row >= before}

    def _rewrite(self, segment: Segment, fsync: bool) -> None:
        data = segment.read(0)
        kept = []
        for each in record.frames(data):
            said = None if each.head is None else record.meaning(each.head)
            if (said is not None and not isinstance(said, Entry)) or (said is not None and self.waits(said)):
                kept.append(data[each.start : each.end])
        draft = segment.path.with_name(segment.path.name + DRAFT_SUFFIX)
        with create_private(draft) as file:
            file.writelines(kept)
            file.flush()
            if fsync:
                os.fsync(file.fileno())
        draft.rename(segment.path)
        segment.size = sum(map(len, kept))

    def close(self) -> None:
        """Close all files, which stay."""
        for segment in (*self.retired, *self.segments):
            segment.close()
        self.watermark.close()

    def remove(self) -> None:
        """Close and remove all files but those of what is damaged."""
        self.close()
        for segment in self.segments:
            segment.path.unlink(missing_ok=True)
        self.watermark.path.unlink(missing_ok=True)
