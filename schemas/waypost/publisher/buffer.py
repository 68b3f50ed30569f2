"""Commands that the publisher has accepted and Kafka has not acknowledged: bounded, in order, thread-safe.

A command arrives in one queue for all (so that accepting it needs no knowledge of Kafka), is laid into the
queue of its partition by :meth:`Buffer.route`, and counts as in flight from :meth:`Buffer.take` until
:meth:`Buffer.acknowledge`. It is in exactly one of these places at any time; what was in flight when a producer
died goes back to the front of its queue.

With a spool, each command is on disk before its call returns, and memory is a window over the spool: commands that do
not fit are only on disk, after all those in memory, and come back in order. Knows nothing about Kafka except the number
of partitions, and nothing about files: :mod:`waypost.publisher.spool` does.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from waypost.errors import BufferFullError, PublisherClosedError
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending
from waypost.wire.topics import partition_of

if TYPE_CHECKING:
    from waypost.publisher.spool.spooler import Spooler

# At most this many commands of one session may be in one batch. Unacknowledged commands are sent again, and their ids
# make that harmless as long as the worker remembers them: 256 of a session, of which other publishers of the same
# session may use up the rest in between.
MOST_OF_A_SESSION: Final = 192
_LOAD_MOST: Final = 500  # commands that come back from the disk at a time
_in_order = attrgetter("number")


class Buffer:
    """A bounded buffer of accepted commands. ``put`` may be called from any thread, the rest by one sender.

    ``wake`` is called (in the thread that puts) when a command arrives while the sender rests, ``on_drop`` with
    each command that ``drop_oldest`` gave up.
    """

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        on_full: OnFull,
        wake: Callable[[], None],
        on_drop: Callable[[Pending], None],
        spool: "Spooler | None" = None,
    ) -> None:
        self.accepted = 0  # ever
        self.dropped = 0  # ever
        self.newest = 0 if spool is None else spool.last_number  # the number of the newest command
        self.bytes = 0
        # At most this many batches of a partition may be acknowledged and not settled when the next one is sent. With
        # one, two batches may be sent again.
        self.most_unsettled = int(spool is not None and spool.fsync)
        self.most_of_a_session = MOST_OF_A_SESSION // (1 + self.most_unsettled)
        self.load_most = max(1, min(_LOAD_MOST, max_count // 4))
        self._spool = spool
        self._beyond = 0 if spool is None else spool.behind  # on the disk alone
        self._count = 0
        self._front: deque[Pending] = deque()  # to be routed before all arrivals
        self._arrivals: deque[Pending] = deque()
        self._queues: list[deque[Pending]] = []
        self._in_flight: list[deque[Pending]] = []
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._on_full = on_full
        self._wake = wake
        self._on_drop = on_drop
        self._resting = False
        self._closed = False
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)

    def __len__(self) -> int:
        return self._count + self._beyond

    def put(self, *accepted: Pending, timeout: float | None = None) -> None:
        """Accept these commands, all or, with an error, none.

        ``timeout`` in seconds bounds the waiting of ``on_full="block"``.

        Raises:
            BufferFullError: There is no room.
            SpoolError: They can't be written to the disk.
            PublisherClosedError: The buffer was closed during the call.
        """
        dropped: list[Pending] = []
        wake = False
        try:
            with self._lock:
                if self._spool is None:
                    self._enter(accepted, dropped, timeout)
                else:
                    self._store(self._spool, accepted, dropped, timeout)
                self.accepted += len(accepted)
                if wake := self._resting and self._routable():
                    self._resting = False
        finally:
            for one in dropped:
                self._on_drop(one)
        if wake:
            self._wake()

    def _enter(self, accepted: Sequence[Pending], dropped: list[Pending], timeout: float | None) -> None:
        count, size = len(accepted), _size(accepted)
        if self._closed or not self._fits(count, size):
            possible = count <= self._max_count and size <= self._max_bytes
            if not self._made(lambda: self._fits(count, size), possible, dropped, timeout):
                raise BufferFullError(
                    f"the publisher's buffer is full ({self._count} commands, {self.bytes} bytes, and {size} more "
                    "do not fit): Kafka is unreachable or slower than this agent. This command was not accepted, those "
                    "in the buffer are kept; try again later, or raise max_buffer_count or max_buffer_bytes"
                )
        for pending in accepted:
            self.newest += 1
            pending.number = self.newest
        self._hold(accepted, count, size)

    def _store(
        self, spool: "Spooler", accepted: Sequence[Pending], dropped: list[Pending], timeout: float | None
    ) -> None:
        data = spool.encode(accepted)
        if self._closed or not spool.fits(len(data)):
            size = len(data)
            if not self._made(lambda: spool.fits(size), spool.could_fit(size), dropped, timeout):
                raise BufferFullError(
                    f"the publisher's spool is full ({len(self)} commands, {spool.bytes} bytes, and {size} more do "
                    "not fit): Kafka is unreachable or slower than this agent. This command was not accepted, those in "
                    "the spool are kept; try again later, or raise max_spool_bytes"
                )
            data = spool.encode(accepted)  # others may have come first
        count, size = len(accepted), _size(accepted)
        held = not self._beyond and self._fits(count, size)
        self.newest = spool.write(data, accepted, held=held, behind=self._beyond)
        if held:
            self._hold(accepted, count, size)
        else:
            self._beyond += count

    def _hold(self, accepted: Sequence[Pending], count: int, size: int) -> None:
        self._count += count
        self.bytes += size
        self._arrivals.extend(accepted)

    def _routable(self) -> bool:
        """Return whether :meth:`route` would find something."""
        return bool(self._front or self._arrivals)

    def _fits(self, count: int, size: int) -> bool:
        return self._count + count <= self._max_count and self.bytes + size <= self._max_bytes

    def _made(
        self, fits: Callable[[], bool], possible: bool, dropped: list[Pending], timeout: float | None
    ) -> bool:
        """Make room as ``on_full`` says, if it is ``possible`` at all; return whether it fits now."""
        if self._on_full == "drop_oldest" and possible:
            while not fits() and (oldest := self._drop_oldest()):
                dropped.append(oldest)
        elif self._on_full == "block" and possible:
            self._room.wait_for(lambda: self._closed or fits(), timeout)
        if self._closed:
            raise PublisherClosedError(
                "the publisher was closed during the call, so the command was not accepted"
            )
        return fits()

    def _drop_oldest(self) -> Pending | None:
        # Commands in flight may already be in Kafka, so only those that still wait can be dropped.
        queues = [queue for queue in (*self._queues, self._front, self._arrivals) if queue]
        if not queues:
            return None
        queue = min(queues, key=lambda queue: queue[0].number)
        if self._spool is not None:
            self._spool.drop(queue[0])  # first, so that it does not come back if this process dies
        oldest = queue.popleft()
        self.dropped += 1
        self._forget(oldest)
        return oldest

    def _forget(self, pending: Pending) -> None:
        self._count -= 1
        self.bytes -= pending.size
        if self._spool is not None:
            self._spool.forget(pending)
            if self._beyond and self.load_wanted():
                self._spool.hint()

    def roomy(self) -> bool:
        """Return whether there is room for a while: in half of the memory, or in a quarter of the spool."""
        if self._spool is not None:
            return self._spool.roomy()
        return 2 * self._count <= self._max_count and 2 * self.bytes <= self._max_bytes

    # For the spool's thread.

    def load_wanted(self) -> bool:
        """Return whether what is on the disk alone should come into memory, ``load_most`` at a time.

        By what is loaded at a time the bounds of the memory may be passed.
        """
        return self._beyond > 0 and 2 * self._count <= self._max_count and 2 * self.bytes <= self._max_bytes

    def loaded(self, found: Sequence[Pending]) -> None:
        """Take the oldest that are on the disk alone into memory."""
        assert self._spool is not None
        with self._lock:
            for pending in found:
                self._spool.loaded(pending)
            self._beyond -= len(found)
            self._hold(found, len(found), _size(found))
            wake, self._resting = self._resting, False
        if wake:
            self._wake()

    def lost(self, take: Callable[[], int]) -> int:
        """Give up some of the oldest that are on the disk alone: as many as ``take`` returns."""
        with self._lock:
            count = take()
            self._beyond -= count
            self._room.notify_all()
        return count

    # For the sender.

    def rest(self) -> bool:
        """Return whether there is nothing to :meth:`route`; then the next arrival will ``wake``."""
        with self._lock:
            self._resting = not self._routable()
            return self._resting

    def set_partition_count(self, partitions: int) -> None:
        """Prepare to route to this many partitions. Waiting commands are sorted again if the number changed."""
        with self._lock:
            if partitions == len(self._queues):
                return
            self._front = deque(merge(*self._in_flight, *self._queues, self._front, key=_in_order))
            self._queues = [deque() for _ in range(partitions)]
            self._in_flight = [deque() for _ in range(partitions)]

    def route(self, most: int) -> int:
        """Lay up to ``most`` arrivals into the queues of their partitions; how many there were."""
        with self._lock:
            moved = self._lay(self._front, most)
            if moved < most and self._routable():
                moved += self._lay(self._arrivals, most - moved)
        return moved

    def _lay(self, source: deque[Pending], most: int) -> int:
        partitions = len(self._queues)
        moved = min(most, len(source))
        for _ in range(moved):
            pending = source.popleft()
            partition = pending.partition
            if partition is None:
                partition = partition_of(pending.session_id or "", partitions)
            self._queues[partition].append(pending)
        return moved

    def waits(self, partition: int) -> bool:
        """Return whether commands of this partition wait to be taken."""
        return bool(self._queues[partition])

    def take(
        self, partition: int, most_count: int, most_bytes: int, batch: dict[str | None, int]
    ) -> list[Pending]:
        """The oldest of a partition that are not in flight, now in flight, as far as they fit into a batch.

        ``batch`` counts what it holds of each session, and is kept up to date. Into an empty one the first
        command goes whatever its size.
        """
        taken: list[Pending] = []
        with self._lock:
            queue, in_flight = self._queues[partition], self._in_flight[partition]
            while queue and len(taken) < most_count:
                pending = queue[0]
                most_bytes -= pending.size
                of_session = batch.get(pending.session_id, 0)
                if (most_bytes < 0 and batch) or of_session >= self.most_of_a_session:
                    break
                batch[pending.session_id] = of_session + 1
                pending.tries += 1
                taken.append(queue.popleft())
            in_flight.extend(taken)
        return taken

    def give_back(self, partition: int, count: int) -> None:
        """The last ``count`` taken of a partition wait again, at the front of its queue."""
        with self._lock:
            for _ in range(count):
                pending = self._in_flight[partition].pop()
                pending.tries -= 1
                self._queues[partition].appendleft(pending)

    def give_all_back(self) -> None:
        """Return everything in flight to the queue, in order."""
        with self._lock:
            for queue, in_flight in zip(self._queues, self._in_flight, strict=True):
                queue.extendleft(reversed(in_flight))
                in_flight.clear()

    def acknowledge(self, partition: int, count: int) -> list[Pending]:
        """The oldest ``count`` in flight of a partition need no more care: they leave the buffer."""
        with self._lock:
            gone = [self._in_flight[partition].popleft() for _ in range(count)]
            for pending in gone:
                self._forget(pending)
            self._room.notify_all()
        return gone

    def holds(self, up_to: int) -> bool:
        """Return whether any command with a number up to this one is still here."""
        with self._lock:
            return any(queue[0].number <= up_to for queue in self._all() if queue) or bool(
                self._behind(up_to)
            )

    def count_left(self, up_to: int) -> int:
        """Return how many commands with a number up to this one are still here."""
        with self._lock:
            held = sum(pending.number <= up_to for queue in self._all() for pending in queue)
            return held + self._behind(up_to)

    def _behind(self, up_to: int) -> int:
        # The newest are on the disk alone, if any are, and their numbers have no gaps.
        return max(0, self._beyond - (self.newest - up_to))

    def left(self) -> list[Pending]:
        """The commands in memory, in order of acceptance."""
        with self._lock:
            return list(merge(*self._all(), key=_in_order))

    def settle(self, partition: int, gone: Sequence[Pending], settled: Callable[[], None]) -> bool:
        """Record on the disk that these were acknowledged.

        True if that is not done when this returns; ``settled`` is then called, from any thread, when it is.
        """
        if self._spool is None:
            return False
        return self._spool.settle(len(self._queues), partition, gone, settled)

    def in_flight(self, pending: Pending, partition: int, most: int) -> bool:
        """Return whether this command is among the oldest ``most`` in flight of a partition."""
        with self._lock:
            return any(one is pending for one in islice(self._in_flight[partition], most))

    def _all(self) -> list[deque[Pending]]:
        return [*self._in_flight, *self._queues, self._front, self._arrivals]

    def close(self) -> None:
        """Accept nothing more, and let nobody wait for room."""
        with self._lock:
            self._closed = True
            self._room.notify_all()


def _size(commands: Sequence[Pending]) -> int:
    return commands[0].size if len(commands) == 1 else sum(pending.size for pending in commands)
