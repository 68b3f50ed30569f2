"""What the publisher has accepted and Kafka has not acknowledged: bounded, in order, thread-safe.

A command arrives in one queue for all (so that accepting it needs no knowledge of Kafka), is laid into the
queue of its partition by :meth:`Buffer.route`, and counts as in flight from :meth:`Buffer.take` until
:meth:`Buffer.acknowledge`. It is in exactly one of these places at any time; what was in flight when a producer
died goes back to the front of its queue. Knows nothing of Kafka but the number of partitions, and nothing of
disks: :mod:`waypost.publisher.spool.buffer` does.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from heapq import merge
from itertools import islice
from operator import attrgetter
from typing import Final

from waypost.errors import BufferFullError
from waypost.publisher.options import OnFull
from waypost.publisher.pending import Pending
from waypost.wire.topics import partition_of

# So many commands of one session may be in one batch. What was sent and not acknowledged is sent again, and its
# ids make it harmless as long as the worker remembers them: 256 of a session, of which other publishers of the
# same session may use up the rest in between.
MOST_OF_A_SESSION: Final = 192
_in_order = attrgetter("number")


class Buffer:
    """A bounded buffer of accepted commands. ``put`` may be called from any thread, the rest by one sender.

    ``wake`` is called (in the thread that puts) when a command arrives while the sender rests, ``on_drop`` with
    each command that ``drop_oldest`` gave up.
    """

    most_of_a_session = MOST_OF_A_SESSION
    recovered = set_aside_count = disk_count = disk_bytes = 0  # nothing is on a disk

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        on_full: OnFull,
        wake: Callable[[], None],
        on_drop: Callable[[Pending], None],
    ) -> None:
        self.accepted = 0  # ever
        self.dropped = 0  # ever
        self.newest = 0  # the number of the newest command
        self.bytes = 0
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
        return self._count

    def put(self, *accepted: Pending, timeout: float | None = None) -> None:
        """Accept these commands, all or, with BufferFullError, none.

        ``timeout`` in seconds bounds the waiting of ``on_full="block"``.
        """
        count = len(accepted)
        size = accepted[0].size if count == 1 else sum(pending.size for pending in accepted)
        dropped: list[Pending] = []
        with self._lock:
            if self._count + count > self._max_count or self.bytes + size > self._max_bytes:
                self._make_room(count, size, dropped, timeout)
            for pending in accepted:
                self.newest += 1
                pending.number = self.newest
            self.accepted += count
            self._enter(accepted, count, size)
            wake = self._resting and self._routable()
            if wake:
                self._resting = False
        for one in dropped:
            self._on_drop(one)
        if wake:
            self._wake()

    def _enter(self, accepted: Sequence[Pending], count: int, size: int) -> None:
        self._arrivals.extend(accepted)
        self._count += count
        self.bytes += size

    def _routable(self) -> bool:
        """Whether :meth:`route` would find something."""
        return bool(self._front or self._arrivals)

    def _fits(self, count: int, size: int) -> bool:
        return self._count + count <= self._max_count and self.bytes + size <= self._max_bytes

    def _make_room(self, count: int, size: int, dropped: list[Pending], timeout: float | None) -> None:
        possible = count <= self._max_count and size <= self._max_bytes
        if not self._made(lambda: self._fits(count, size), possible, dropped, timeout):
            raise BufferFullError(
                f"the publisher's buffer is full ({self._count} commands, {self.bytes} bytes, and {size} more "
                "do not fit): Kafka is away or slower than this agent. This command was not accepted, those in "
                "the buffer are kept; try again later, or raise max_buffer_count or max_buffer_bytes"
            )

    def _made(
        self, fits: Callable[[], bool], possible: bool, dropped: list[Pending], timeout: float | None
    ) -> bool:
        """Make room as ``on_full`` says, where it is ``possible`` at all; whether it fits now."""
        if self._on_full == "drop_oldest" and possible:
            while not fits() and (oldest := self._drop_oldest()):
                dropped.append(oldest)
        elif self._on_full == "block" and possible:
            self._room.wait_for(lambda: self._closed or fits(), timeout)
        return fits() and not self._closed

    def _drop_oldest(self) -> Pending | None:
        # What is in flight may be in Kafka already, so only what still waits can be given up.
        queues = [queue for queue in (*self._queues, self._front, self._arrivals) if queue]
        if not queues:
            return None
        oldest = min(queues, key=lambda queue: queue[0].number).popleft()
        self.dropped += 1
        self._forget(oldest)
        return oldest

    def _forget(self, pending: Pending) -> None:
        pending.gone = True
        self._count -= 1
        self.bytes -= pending.size

    def rest(self) -> bool:
        """Whether there is nothing to :meth:`route`; then the next arrival will ``wake``."""
        with self._lock:
            self._resting = not self._routable()
            return self._resting

    def set_partition_count(self, partitions: int) -> None:
        """Be ready to route to so many partitions; what waits is sorted anew if it was another number."""
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
        """Whether commands of this partition wait to be taken."""
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
        """Nothing is in flight any more: all that was waits again, in order."""
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
        """Whether any command with a number up to this one is still here."""
        with self._lock:
            return any(queue[0].number <= up_to for queue in self._all() if queue)

    def count_left(self, up_to: int) -> int:
        """How many commands with a number up to this one are still here."""
        with self._lock:
            return sum(pending.number <= up_to for queue in self._all() for pending in queue)

    def left(self) -> list[Pending]:
        """The commands in memory, in order of acceptance."""
        with self._lock:
            return list(merge(*self._all(), key=_in_order))

    def settle(self, gone: Sequence[Pending], settled: Callable[[], None]) -> bool:
        """Let go of what was acknowledged, wherever else it is kept.

        True where that takes time; ``settled`` is then called, from any thread, when it is done.
        """
        return False

    def in_flight(self, pending: Pending, partition: int, most: int) -> bool:
        """Whether this command is among the oldest ``most`` in flight of a partition."""
        with self._lock:
            return any(one is pending for one in islice(self._in_flight[partition], most))

    def _all(self) -> list[deque[Pending]]:
        return [*self._in_flight, *self._queues, self._front, self._arrivals]

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
