"""The buffer of a publisher with a spool: bounded in memory, and beyond that on the disk, in one order.

What was accepted stands in one line: in flight, queued by partition, in front, **stored** (on the disk alone),
arrivals. Only the stored part is not in memory. While it is not empty, arrivals wait behind it, and what is
loaded from it goes in front. A command is written to the disk

- before its call returns, if the publisher was told so (:mod:`waypost.publisher.spool.write_through`), or
- when memory is half full: then the oldest arrivals move to the disk, or
- when Kafka has taken nothing for a while: then all that is in memory is written, and stays in memory too.

This module decides what is to be written, loaded and removed, and keeps the books; the thread of
:mod:`waypost.publisher.spool.spooler` does it. It knows neither files nor Kafka.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from waypost.publisher.buffer import Buffer
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending
from waypost.publisher.spool.disk_queue import Removal, Removals, Settled, Stored

if TYPE_CHECKING:
    from waypost.publisher.spool.file import SpoolFile

_LOAD_BELOW: Final = 500  # commands in front, below which more are loaded


class SpoolShare(NamedTuple):
    """What a buffer has of the spool: its file, and the bytes that all files may take.

    ``recovered`` are count and bytes of what dead publishers left: it is stored, and numbered from 1. ``hint`` is
    called, from any thread, when there is work for the spooler.
    """

    own: "SpoolFile"
    max_disk_bytes: int
    recovered: tuple[int, int]
    hint: Callable[[], None]


class SpooledBuffer(Buffer):
    """As :class:`waypost.publisher.buffer.Buffer`."""

    # A batch may be acknowledged and not yet removed from the disk while the next one is in flight.
    most_of_a_session = Buffer.most_of_a_session // 2

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        on_full: OnFull,
        wake: Callable[[], None],
        on_drop: Callable[[Pending], None],
        disk: SpoolShare,
    ) -> None:
        super().__init__(max_count, max_bytes, on_full, wake, on_drop)
        self._own, self._max_disk_bytes, (self.newest, self.disk_bytes), self._hint = disk
        self.disk_count = self.recovered = self.newest
        self._line = Stored(self.newest)
        self.load_most = max(1, min(_LOAD_BELOW, max_count // 4))
        self._hinted = False
        self._saved_up_to = 0
        self._spilling: list[Pending] = []
        self._removals = Removals()

    def __len__(self) -> int:
        return self._count + self.stored

    @property
    def stored(self) -> int:
        """How many are on the disk alone."""
        return self._line.count

    # Accepting.

    def _fits_on_disk(self, size: int) -> bool:
        return self.disk_bytes + size <= self._max_disk_bytes

    def _enter(self, accepted: Sequence[Pending], count: int, size: int) -> None:
        super()._enter(accepted, count, size)
        if self._crowded() and not self._hinted:
            self._call_spooler()

    def _crowded(self) -> bool:
        return 2 * self._count > self._max_count or 2 * self.bytes > self._max_bytes

    def _call_spooler(self) -> None:
        if not self._hinted:
            self._hinted = True
            self._hint()

    # Routing.

    def _routable(self) -> bool:
        if self._front:
            return True
        if not self._arrivals or self.stored or self._spilling:
            return False
        return self._head_has_room()

    def _head_has_room(self) -> bool:
        # What is not in the queues can still move to the disk, so they take no more than half of the memory.
        head = self._count - len(self._arrivals) - len(self._spilling)
        return 2 * head <= self._max_count and 2 * self.bytes * head <= self._max_bytes * self._count

    def route(self, most: int) -> int:
        """As :meth:`Buffer.route`; calls for more where what is in front runs out."""
        moved = super().route(most)
        self._ask_for_more()
        return moved

    def _ask_for_more(self) -> None:
        if self.stored and not self._hinted and self.load_wanted():
            with self._lock:
                self._call_spooler()

    def acknowledge(self, partition: int, count: int) -> list[Pending]:
        """As :meth:`Buffer.acknowledge`; what is on the disk stays there until it is settled."""
        gone = super().acknowledge(partition, count)
        self._ask_for_more()
        return gone

    def _forget(self, pending: Pending) -> None:
        super()._forget(pending)
        if pending.home is not None:
            self.disk_count -= 1
            self.disk_bytes -= pending.size

    def _drop_oldest(self) -> Pending | None:
        oldest = super()._drop_oldest()
        if oldest is not None and oldest.home is not None:
            self._removals.add([oldest], None)
            self._call_spooler()
        return oldest

    def settle(self, gone: Sequence[Pending], settled: Settled) -> bool:
        """As :meth:`Buffer.settle`: removes them from the disk."""
        if kept := [pending for pending in gone if pending.home is not None]:
            with self._lock:
                self._removals.add(kept, settled)
                self._call_spooler()
        return bool(kept)

    # For the spooler's thread.

    def next_stored(self) -> tuple[int, int]:
        """Between which rows, both ended, the stored commands of our own are."""
        with self._lock:
            return self._line.first, self._line.last

    def put_off(self, removals: Sequence[Removal]) -> None:
        """What :meth:`removals` gave could not be removed; it comes again."""
        with self._lock:
            self._removals.give_back(removals)

    def listen(self) -> None:
        """From now on, news are worth a hint again."""
        with self._lock:
            self._hinted = False

    def removals(self) -> list[Removal]:
        """What is to be removed from the disk, oldest first, and whom to tell. The caller removes it."""
        with self._lock:
            return self._removals.take()

    def spill(self, most: int) -> tuple[int, list[Pending]]:
        """Let up to ``most`` of the oldest arrivals leave the memory, if it is crowded.

        How many they are, and those of them that are to be written first. Ends with :meth:`spilled`.
        """
        new = []
        with self._lock:
            while self._crowded() and self._arrivals and len(self._spilling) < most:
                oldest = self._arrivals[0]
                if oldest.home is None:
                    if not self._settle_down(oldest):
                        break
                    new.append(oldest)
                self._spilling.append(self._arrivals.popleft())
            return len(self._spilling), new

    def _settle_down(self, pending: Pending) -> bool:
        """Give a command its place on the disk; False if there is no room."""
        if not self._fits_on_disk(pending.size):
            return False
        pending.home, pending.row = self._own, pending.number
        self.disk_count += 1
        self.disk_bytes += pending.size
        return True

    def spilled(self, not_written: Sequence[Pending] | None = None) -> None:
        """The commands of the last :meth:`spill` are on the disk; or these are not, and all stay in memory."""
        with self._lock:
            if not_written is None:
                for pending in self._spilling:
                    self._count -= 1
                    self.bytes -= pending.size
                    self._line.append(pending.number)
            else:
                self._arrivals.extendleft(reversed(self._spilling))
                self._homeless(not_written)
            self._spilling = []
            self._room.notify_all()

    def oldest(self) -> int:
        """The number of the oldest command that is here; 0 if there is none."""
        with self._lock:
            return self._oldest()

    def _oldest(self) -> int:
        numbers = [queue[0].number for queue in self._all() if queue]
        if self.stored:
            numbers.append(self._line.first)
        return min(numbers, default=0)

    def unsaved(self) -> list[Pending]:
        """What is in memory alone and newer than all that was saved before, in order."""
        found: list[Pending] = []
        with self._lock:
            for queue in self._all():
                for pending in reversed(queue):
                    if pending.number <= self._saved_up_to:
                        break
                    if pending.home is None:
                        found.append(pending)
        found.sort(key=lambda pending: pending.number)
        return found

    def in_memory_alone(self, up_to: int) -> bool:
        """Whether any command with a number up to this one would be lost with the process."""
        unsaved = self.unsaved()
        return bool(unsaved) and unsaved[0].number <= up_to

    def roomy(self) -> bool:
        """Whether a quarter of what can fill up is free, which is the memory."""
        return 4 * self._count <= 3 * self._max_count and 4 * self.bytes <= 3 * self._max_bytes

    def save(self, candidates: Sequence[Pending]) -> list[Pending]:
        """Those that are to be written: still here, and as many as fit on the disk. Ends with :meth:`saved`."""
        chosen = []
        with self._lock:
            for each in candidates:
                if each.gone or each.home is not None:
                    continue
                if not self._settle_down(each):
                    break
                chosen.append(each)
        return chosen

    def saved(self, written: Sequence[Pending], *, well: bool) -> None:
        """What :meth:`save` chose is on the disk, or could not be written."""
        with self._lock:
            if well:
                self._saved_up_to = max(self._saved_up_to, written[-1].number)
            else:
                self._homeless(written)

    def _homeless(self, pending: Sequence[Pending]) -> None:
        for one in pending:
            one.home = None
            if not one.gone:
                self.disk_count -= 1
                self.disk_bytes -= one.size

    def load_wanted(self) -> bool:
        """Whether stored commands should come into memory now, ``load_most`` at a time.

        Also where arrivals fill the memory: they wait for what is stored, which can only leave through it. By
        what is loaded at a time the bounds of the memory may be passed.
        """
        return self.stored > 0 and len(self._front) < _LOAD_BELOW and self._head_has_room()

    def loaded(self, found: Sequence[Pending]) -> None:
        """The oldest stored commands are in memory again."""
        with self._lock:
            for pending in found:
                # What others left comes first and has numbers of its own in each file.
                pending.number = self._line.take(pending.row if pending.home is self._own else None)
                self._count += 1
                self.bytes += pending.size
            self._front.extend(found)
            wake, self._resting = self._resting, False
        if wake:
            self._wake()

    def adopt(self, count: int, size: int) -> bool:
        """What a publisher left that died meanwhile is stored with us now, behind what is here; False if not.

        Only in calm times, and where it fits beside what we have on the disk.
        """
        with self._lock:
            if not self.calm() or (self.disk_count and not self._fits_on_disk(size)):
                return False
            # In memory, older than what is taken over: so it stays in front of it, though in no order with it.
            self._front.extend(self._arrivals)
            self._arrivals.clear()
            self._line.adopt(count, self.newest + 1)
            self.newest += count
            self.recovered += count
            self.disk_count += count
            self.disk_bytes += size
        return True

    def calm(self) -> bool:
        """Whether nothing is stored, and memory has room."""
        return not self.stored and not self._crowded()

    def set_aside(self, count: int, size: int) -> None:
        """So many of the oldest stored commands turned out to be none; their file keeps what they are."""
        if count:
            with self._lock:
                self._line.lose(count)
                self.set_aside_count += count
                self.disk_count -= count
                self.disk_bytes -= size
                self._room.notify_all()

    def lost_sight(self, count: int, size: int) -> None:
        """So many commands that a dead publisher left can't be read; its file keeps them."""
        with self._lock:
            self._line.lose(count)
            self.recovered -= count
            self.disk_count -= count
            self.disk_bytes -= size

    # For those who wait and count.

    def holds(self, up_to: int) -> bool:
        """As :meth:`Buffer.holds`, on the disk too."""
        with self._lock:
            return 0 < self._oldest() <= up_to

    def count_left(self, up_to: int) -> int:
        """As :meth:`Buffer.count_left`, on the disk too."""
        return super().count_left(up_to) + self._line.up_to(up_to)

    def _all(self) -> list[deque[Pending]]:
        return [*super()._all(), deque(self._spilling)]
