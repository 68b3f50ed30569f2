"""Reads back, in order, what is in a log and not in memory."""

from collections.abc import Iterator

from waypost.publisher.pending import Pending
from waypost.publisher.spool.log import Log, Segment

_READ_BYTES = 4 * 1024 * 1024  # in memory, about, for one step


class Reader:
    """A place in a log; what comes from there on is not in memory. ``seek`` and ``lose`` need the buffer's lock."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._segment: Segment | None = log.segments[0] if log.segments else None
        self._at = 0
        self._found: Iterator[Pending | bytes] = iter(())
        self._damaged: list[bytes] = []

    def seek(self, segment: Segment, offset: int) -> None:
        """Continue from here."""
        self._segment, self._at, self._found = segment, offset, iter(())

    def read(self, most: int) -> list[Pending]:
        """Return the next commands, at most this many; none if the rest of a file or of the log holds none.

        Raises:
            OSError: The file can't be read.
        """
        found: list[Pending] = []
        size = 0
        while (segment := self._segment) is not None:
            for each in self._found:
                if isinstance(each, bytes):
                    self._damaged.append(each)
                    continue
                each.home = segment
                found.append(each)
                size += each.size
                if len(found) >= most or size >= _READ_BYTES:
                    return found
            if segment.unread and self._at < segment.size:
                data = segment.read(self._at)
                if not data:
                    raise OSError(f"{segment.path} is shorter than what was written to it")
                self._at += len(data)
                self._found = self.log.commands(data)
            elif found or segment.unread:
                break
            else:
                self._damaged.clear()  # set aside when the log was opened
                following = (each for each in self.log.segments if each.index > segment.index)
                if (after := next(following, None)) is None:
                    break
                self.seek(after, 0)
        return found

    def lose(self) -> tuple[int, int]:
        """Give up what :meth:`read` did not find in a file that it read to its end; count and bytes of the commands."""
        segment = self._segment
        if segment is None or self._at < segment.size or not segment.unread:
            return 0, 0
        lost, size = segment.unread, segment.unread_bytes
        segment.unread = segment.unread_bytes = 0
        segment.live -= lost
        segment.live_bytes -= size
        segment.set_aside(self._damaged)
        self._damaged = []
        return lost, size
