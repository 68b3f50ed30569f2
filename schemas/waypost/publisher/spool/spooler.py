"""Joins a publisher's buffer and its logs: what is written in a call, and what a thread does behind it.

A call appends to the log, under the buffer's lock. The thread reads back what does not fit into memory, removes files
that nobody needs, and syncs, so that no slow disk ever holds up the event loop. The order of things is the buffer's.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, cast

from waypost.errors import SpoolError
from waypost.publisher.pending import Pending
from waypost.publisher.spool.directory import SpoolClaim
from waypost.publisher.spool.log import Log, Segment
from waypost.publisher.spool.reader import Reader

log = logging.getLogger("waypost")
_TICK: Final = 1.0  # between two checks that the files still exist, and between two attempts after trouble


class CommandWindow(Protocol):
    """The commands in memory, in front of those that are on the disk alone: a publisher's buffer."""

    load_most: int

    def load_wanted(self) -> bool:
        """Return whether what is on the disk alone should come into memory, ``load_most`` at a time."""
        ...

    def loaded(self, found: Sequence[Pending]) -> None:
        """Take the oldest that are on the disk alone into memory."""
        ...

    def lost(self, take: Callable[[], int]) -> int:
        """Give up some of the oldest that are on the disk alone: as many as ``take`` returns."""
        ...


class Spooler:
    """The spool of one publisher. ``bytes`` are those of commands that are neither acknowledged nor dropped;
    ``recovered`` counts commands from dead publishers, ``behind`` those of them that must be sent, and ``damaged``
    those that can't be; ``last_number`` is the number of the newest of these.
    """

    def __init__(self, claim: SpoolClaim, max_bytes: int, *, fsync: bool) -> None:
        self.fsync = fsync
        self.bytes = sum(left.live_bytes for left in claim.left)
        self.behind = sum(left.live for left in claim.left)
        self.damaged = sum(left.damaged for left in claim.left)
        self.recovered = self.behind + self.damaged
        self._claim = claim
        self._own = claim.own
        self.encode = claim.own.encode  # what write() will write
        self._max_bytes = max_bytes
        base = 0
        for each in (*claim.left, claim.own):
            each.base = base
            base += each.rows
        self.last_number = base
        self._readers = deque(Reader(each) for each in (*claim.left, claim.own))
        self._write_error: str | None = None
        self._error: str | None = None
        self._hinted = False
        self._news = threading.Event()
        self._stop = threading.Event()
        self._ended = False
        self._ending = threading.Lock()
        self._at_the_end: list[Callable[[], None]] = []
        self._synced = base
        self._unsafe: list[Segment] = []
        self._marking = threading.Lock()
        self._marks: dict[tuple[Log, int, int], int] = {}
        self._unmarked: deque[Callable[[], None]] = deque()
        self._asked: deque[tuple[int, Callable[[], None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="waypost-spool", daemon=True)

    @property
    def last_error(self) -> str | None:
        """Return the disk's current problem."""
        return self._write_error or self._error

    def start(self, buffer: CommandWindow) -> None:
        """Begin to serve."""
        self._buffer = buffer
        self._thread.start()

    # In a call, under the buffer's lock.

    def fits(self, size: int) -> bool:
        """Return whether this many more bytes are allowed."""
        return self.bytes + size <= self._max_bytes

    def could_fit(self, size: int) -> bool:
        """Return whether this many bytes are allowed if there is nothing else."""
        return size <= self._max_bytes

    def roomy(self) -> bool:
        """Return whether a quarter of the allowed bytes is free."""
        return 4 * self.bytes <= 3 * self._max_bytes

    def write(self, data: bytes, accepted: Sequence[Pending], *, held: bool, behind: int) -> int:
        """Write commands, give them their numbers and return the last one.

        They are ``held`` in memory too, or the oldest on the disk alone if nothing else is ``behind``.

        Raises:
            SpoolError: Nothing was written.
        """
        own = self._own
        try:
            segment = own.write(data, len(accepted))
        except OSError as error:
            raise self._explained(error, "This command was not accepted") from error
        self._write_error = None
        base = own.base
        for pending in accepted:
            pending.number = base + pending.row
            pending.home = segment
        size = len(data)
        self.bytes += size
        segment.live += len(accepted)
        segment.live_bytes += size
        if not held:
            segment.unread += len(accepted)
            segment.unread_bytes += size
            if not behind:
                while len(self._readers) > 1:  # what others left has been read
                    self._readers.popleft()
                self._readers[0].seek(segment, segment.size - size)
        if self.fsync or own.retired:
            self.hint()
        return base + own.rows

    def drop(self, pending: Pending) -> None:
        """Record that a command is given up.

        Raises:
            SpoolError: Nothing was written, so it can't be given up.
        """
        home = cast("Segment", pending.home)
        try:
            home.log.drop([pending])
        except OSError as error:
            raise self._explained(
                error, "This command was not accepted, and none was dropped for it"
            ) from error

    def _explained(self, error: OSError, what: str) -> SpoolError:
        self._write_error = f"{self._own.directory}: {error.strerror or error}"
        return SpoolError(
            f"The spool in {self._own.directory} can't be written: {error.strerror or error}. {what}. All that were "
            "accepted before are kept, in memory or in the spool, and will be sent. Make room on the disk, or correct "
            "its fault"
        )

    def forget(self, pending: Pending) -> None:
        """Stop counting a command: it was acknowledged, or dropped."""
        segment = cast("Segment", pending.home)
        self.bytes -= pending.stored
        segment.live -= 1
        segment.live_bytes -= pending.stored
        if not segment.live and segment is not self._own.segments[-1]:
            self.hint()

    def loaded(self, pending: Pending) -> None:
        """Give a command that was read back its number; it is in memory too now."""
        segment = cast("Segment", pending.home)
        segment.unread -= 1
        segment.unread_bytes -= pending.stored
        pending.number = segment.log.base + pending.row

    def hint(self) -> None:
        """There is work for the thread."""
        if not self._hinted:
            self._hinted = True
            self._news.set()

    # For the sender.

    def settle(
        self, partitions: int, partition: int, gone: Sequence[Pending], settled: Callable[[], None]
    ) -> bool:
        """Record that these were acknowledged, in the order of their partition.

        True if that is not done when this returns; then ``settled`` is called, from any thread, when it is.
        """
        newest: dict[Log, int] = {}
        for pending in gone:
            newest[cast("Segment", pending.home).log] = pending.row
        with self._marking:
            late = self.fsync or bool(self._marks)
            for log_, row in newest.items():
                if not late:
                    try:
                        log_.watermark.advance(partitions, partition, row)
                        continue
                    except OSError as error:
                        self._complain(error)
                        late = True
                self._marks[log_, partitions, partition] = row
            if late:
                self._unmarked.append(settled)
        if late:
            self.hint()
        return late

    # For those who wait.

    def when_persisted(self, number: int, tell: Callable[[], None]) -> None:
        """Call ``tell``, from any thread, once everything up to this number was synced, or could not be."""
        with self._ending:
            if not self._ended:
                self._asked.append((number, tell))
                self.hint()
                return
        tell()

    def persisted(self, number: int) -> bool:
        """Return whether everything up to this number is as safe as requested, or in Kafka.

        Raises:
            SpoolError: The disk can't be synced.
        """
        if not self.fsync:
            return True
        if any(each.live and each.log.base + each.first_row <= number for each in self._unsafe):
            raise SpoolError(
                f"The spool in {self._own.directory} can't be synced to the disk. Accepted commands are kept and will "
                "be sent, but until Kafka has them, a power failure loses them. Fix the disk"
            )
        return self._synced >= number

    def end(self, tell: Callable[[], None]) -> None:
        """Bring the disk up to date, let go of it, and call ``tell`` then, from any thread."""
        with self._ending:
            if not self._ended:
                self._at_the_end.append(tell)
                self._stop.set()
                self._news.set()
                return
        tell()

    def close(self) -> None:
        """:meth:`end`, and wait for it. From any thread but the spool's."""
        self.end(lambda: None)
        self._thread.join()

    # The thread.

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.wait(_TICK)
            self._news.clear()
            self._hinted = False
            try:
                self._serve()
                self._error = None
            except Exception as error:
                self._complain(error)
                self._stop.wait(_TICK)
        self._end()

    def _complain(self, error: Exception) -> None:
        if not isinstance(error, OSError | SpoolError):
            log.exception("the spool's thread continues after an error; commands stay where they are")
        elif self._error is None:
            log.error("The spool has a problem, and commands stay where they are: %s", error)
        self._error = str(error)

    def _serve(self) -> None:
        self._mark()
        self._sync()
        while self._buffer.load_wanted() and self._load():
            pass
        self._tidy()
        self._own.check()
        if self._unsafe:
            raise SpoolError(f"{self._unsafe[0].path} can't be synced to the disk")

    def _mark(self) -> None:
        """Write and sync what :meth:`settle` could not."""
        with self._marking:
            if not self._unmarked:
                return
            marks, told = dict(self._marks), len(self._unmarked)
        for (log_, partitions, partition), row in marks.items():
            log_.watermark.advance(partitions, partition, row)
        if self.fsync:
            for log_ in {log_ for log_, _, _ in marks}:
                log_.watermark.sync()
        with self._marking:
            self._marks = {key: row for key, row in self._marks.items() if row != marks.get(key)}
            settled = [self._unmarked.popleft() for _ in range(told)]
        for tell in settled:
            tell()

    def _sync(self) -> None:
        if not self.fsync:
            self._own.close_full(list(self._own.retired))
            return
        number = self._own.base + self._own.rows
        if number > self._synced:
            self._unsafe += self._own.sync()
            self._synced = number
        self._unsafe = [segment for segment in self._unsafe if segment.live]
        for _ in range(len(self._asked)):
            number, tell = self._asked.popleft()
            if self._synced >= number:
                tell()
            else:
                self._asked.append((number, tell))

    def _load(self) -> bool:
        """Read some of the oldest that are on the disk alone; False if there is nothing to be found."""
        reader = self._readers[0]
        try:
            found = reader.read(self._buffer.load_most)
        except OSError as error:
            if reader.log is self._own:
                raise
            log.error("The rest of a dead publisher's spool can't be read. It is kept: %s", error)
            self._buffer.lost(partial(self._lose_sight, reader.log))
            self._readers.popleft()
            return True
        if found:
            self._buffer.loaded(found)
            return True
        if self._buffer.lost(partial(self._set_aside, reader)):
            return True
        if reader.log is not self._own:
            self._readers.popleft()
            return True
        return False

    def _set_aside(self, reader: Reader) -> int:
        count, size = reader.lose()
        self.damaged += count
        self.bytes -= size
        return count

    def _lose_sight(self, left: Log) -> int:
        count = sum(segment.unread for segment in left.segments)
        self.bytes -= sum(segment.unread_bytes for segment in left.segments)
        self.recovered -= count
        return count

    def _tidy(self) -> None:
        self._own.tidy(ended=False, fsync=self.fsync)
        for left in list(self._claim.left):
            left.tidy(ended=True, fsync=self.fsync)
            if not left.live:
                self._claim.left.remove(left)
                self._claim.give_up(left)

    def _end(self) -> None:
        for step in (self._mark, self._sync):
            try:
                step()
            except (OSError, SpoolError) as error:
                log.error("The spool could not be brought up to date at the end: %s", error)
        for each in (*self._claim.left, self._own):
            try:
                self._claim.give_up(each)
            except OSError as error:
                log.error("A spool could not be closed: %s", error)
        with self._ending:
            self._ended = True
        # The requester is woken, too, and has to check the outcome.
        for tell in (*self._at_the_end, *(tell for _, tell in self._asked)):
            tell()
