"""The buffer of a publisher with ``durability="spool"``: what a call accepts is on the disk before it returns.

Threads that call at the same time share one commit. Memory holds what fits, so that it need not be loaded again;
what is bounded is the disk.
"""

from typing import Any

from waypost.errors import BufferFullError
from waypost.group_commit import GroupCommit
from waypost.publisher.pending import Pending
from waypost.spool_buffer import SpooledBuffer


class ThroughBuffer(SpooledBuffer):
    """As :class:`waypost.spool_buffer.SpooledBuffer`; nothing is in memory alone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._group: GroupCommit[Pending] = GroupCommit(self._write_through)

    def put(self, *accepted: Pending, timeout: float | None = None) -> None:
        """As :meth:`Buffer.put`; SpoolError if they can't be written, and then they are not accepted."""
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
