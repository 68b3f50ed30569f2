"""The buffer of a publisher with ``durability="spool"``: what a call accepts is on the disk before it returns.

Threads that call at the same time share one commit. Memory holds what fits, so that it need not be loaded again;
what is bounded is the disk.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from waypost.errors import BufferFullError
from waypost.publisher.pending import Pending
from waypost.publisher.spool.buffer import SpooledBuffer


class ThroughBuffer(SpooledBuffer):
    """As :class:`waypost.publisher.spool.buffer.SpooledBuffer`; nothing is in memory alone."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._group: GroupCommit[Pending] = GroupCommit(self._write_through)

    def put(self, *accepted: Pending, timeout: float | None = None) -> None:
        """As :meth:`SpooledBuffer.put`; SpoolError if they can't be written, and then they are not accepted."""
        size = sum(pending.size for pending in accepted)
        dropped: list[Pending] = []
        with self._lock:
            if not self._fits_on_disk(size):
                self._make_disk_room(size, dropped, timeout)
            self.disk_bytes += size
        for one in dropped:
            self._on_drop(one)
        try:
            self._group.submit(accepted)
        except BaseException:
            with self._lock:
                self.disk_bytes -= size
                self._room.notify_all()
            raise

    def _make_disk_room(self, size: int, dropped: list[Pending], timeout: float | None) -> None:
        possible = size <= self._max_disk_bytes
        if not self._made(lambda: self._fits_on_disk(size), possible, dropped, timeout):
            raise BufferFullError(
                f"the publisher's spool is full ({self.disk_count} commands, {self.disk_bytes} bytes, and {size} "
                "more do not fit): Kafka is away or slower than this agent. This command was not accepted, those "
                "in the spool are kept; try again later, or raise max_spool_bytes"
            )

    def _write_through(self, accepted: list[Pending]) -> None:
        with self._lock:
            for pending in accepted:
                self.newest += 1
                pending.number = pending.row = self.newest
                pending.home = self._own
        try:
            self._own.add(accepted)
        except Exception:
            raise  # nothing was written
        except BaseException:
            # An interrupt is most likely raised when the commit has just returned. The call says that nothing
            # was accepted, so nothing may come back from the disk some day.
            with self._lock:
                self._removals.add(list(accepted), None)
                self._call_spooler()
            raise
        with self._lock:
            self.accepted += len(accepted)
            self.disk_count += len(accepted)
            for pending in accepted:
                self._place(pending)
            wake = self._resting and self._routable()
            if wake:
                self._resting = False
        if wake:
            self._wake()

    def _place(self, pending: Pending) -> None:
        """Keep a command that is on the disk in memory too, if there is room and nothing stored before it."""
        if not self.stored and self._fits(1, pending.size):
            self._arrivals.append(pending)
            self._count += 1
            self.bytes += pending.size
            return
        self._front.extend(self._arrivals)
        self._arrivals.clear()
        self._line.append(pending.number)

    def spill(self, most: int) -> tuple[int, list[Pending]]:
        """Nothing: what does not fit into memory never came into it."""
        return 0, []

    def unsaved(self) -> list[Pending]:
        """Nothing is in memory alone."""
        return []

    def roomy(self) -> bool:
        """Whether a quarter of what can fill up is free, which is the disk."""
        return 4 * self.disk_bytes <= 3 * self._max_disk_bytes

    def adopt(self, count: int, size: int) -> bool:
        """As :meth:`SpooledBuffer.adopt`, between two commits: what is being written has its numbers already."""
        return self._group.between(lambda: super(ThroughBuffer, self).adopt(count, size))


T = TypeVar("T")


R = TypeVar("R")


class _Ticket(Generic[T]):
    __slots__ = ("done", "error", "items")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.done = False
        self.error: BaseException | None = None


class GroupCommit(Generic[T]):
    """``write`` gets the items of all who wait, in the order in which they came, and writes all or none."""

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._waiting: deque[_Ticket[T]] = deque()
        self._lock = threading.Lock()

    def submit(self, items: Sequence[T]) -> None:
        """Returns when these items are written, by this thread or another; raises what ``write`` raised."""
        mine = _Ticket(items)
        self._waiting.append(mine)
        with self._lock:
            if not mine.done:
                self._lead()
        if mine.error is not None:
            raise mine.error

    def between(self, act: Callable[[], R]) -> R:
        """Do something while nothing is being written."""
        with self._lock:
            return act()

    def _lead(self) -> None:
        tickets = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            self._write([item for ticket in tickets for item in ticket.items])
        except Exception as error:
            for ticket in tickets:
                ticket.error = error
        except BaseException:
            # An interrupt is for this thread alone; the others only hear that nothing was written.
            for ticket in tickets:
                ticket.error = RuntimeError("the thread that was writing for this one too was interrupted")
            raise
        finally:
            for ticket in tickets:
                ticket.done = True
