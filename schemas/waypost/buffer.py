"""What the publisher has accepted and Kafka has not acknowledged: bounded, in order, thread-safe.

A command arrives in one queue for all (so that accepting it needs no knowledge of Kafka), is laid into the
queue of its partition by :meth:`Buffer.route`, and counts as in flight from :meth:`Buffer.take` until
:meth:`Buffer.acknowledge`. It is in exactly one of these places at any time; what was in flight when a producer
died goes back to the front of its queue. Knows nothing of Kafka but the number of partitions.
"""

import threading
from collections import deque
from collections.abc import Callable
from heapq import merge
from operator import attrgetter
from typing import Final, Literal

from waypost.errors import BufferFullError
from waypost.topics import partition_of

OnFull = Literal["raise", "block", "drop_oldest"]
_OVERHEAD: Final = 400  # what headers and objects cost besides the body, in bytes
_in_order = attrgetter("number")


class Pending:
    """An accepted command: what its record will be made of, and its place in the order of acceptance.

    ``session_id`` is None for a command of a whole partition, which ``partition`` then names. ``number`` counts
    from 1 and is given by the buffer.
    """

    __slots__ = (
        "command_id",
        "command_type",
        "number",
        "partition",
        "session_id",
        "size",
        "time",
        "traceparent",
        "value",
    )

    def __init__(
        self,
        command_id: str,
        command_type: str,
        session_id: str | None,
        value: bytes,
        time: bytes,
        traceparent: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        self.command_id = command_id
        self.command_type = command_type
        self.session_id = session_id
        self.value = value
        self.time = time
        self.traceparent = traceparent
        self.partition = partition
        self.size = len(value) + _OVERHEAD
        self.number = 0


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
    ) -> None:
        self.accepted = 0  # ever; also the number of the newest command
        self.dropped = 0  # ever
        self.bytes = 0
        self._count = 0
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
                self.accepted += 1
                pending.number = self.accepted
            self._arrivals.extend(accepted)
            self._count += count
            self.bytes += size
            wake = self._resting
            self._resting = False
        for one in dropped:
            self._on_drop(one)
        if wake:
            self._wake()

    def _fits(self, count: int, size: int) -> bool:
        return self._count + count <= self._max_count and self.bytes + size <= self._max_bytes

    def _make_room(self, count: int, size: int, dropped: list[Pending], timeout: float | None) -> None:
        possible = count <= self._max_count and size <= self._max_bytes
        if self._on_full == "drop_oldest" and possible:
            while not self._fits(count, size) and (oldest := self._drop_oldest()):
                dropped.append(oldest)
        elif self._on_full == "block" and possible:
            self._room.wait_for(lambda: self._closed or self._fits(count, size), timeout)
        if self._closed or not self._fits(count, size):
            raise BufferFullError(
                f"the publisher's buffer is full ({self._count} commands, {self.bytes} bytes, and {size} more "
                "do not fit): Kafka is away or slower than this agent. This command was not accepted, those in "
                "the buffer are kept; try again later, or raise max_buffer_count or max_buffer_bytes"
            )

    def _drop_oldest(self) -> Pending | None:
        # What is in flight may be in Kafka already, so only what still waits can be given up.
        queues = [queue for queue in (*self._queues, self._arrivals) if queue]
        if not queues:
            return None
        oldest = min(queues, key=lambda queue: queue[0].number).popleft()
        self.dropped += 1
        self._forget(oldest)
        return oldest

    def _forget(self, pending: Pending) -> None:
        self._count -= 1
        self.bytes -= pending.size

    def rest(self) -> bool:
        """Whether nothing has arrived since the last :meth:`route`; then the next arrival will ``wake``."""
        with self._lock:
            self._resting = not self._arrivals
            return self._resting

    def lay_out(self, partitions: int) -> None:
        """Be ready to route to so many partitions; what waits is sorted anew if it was another number."""
        with self._lock:
            if partitions == len(self._queues):
                return
            self._arrivals = deque(merge(*self._in_flight, *self._queues, self._arrivals, key=_in_order))
            self._queues = [deque() for _ in range(partitions)]
            self._in_flight = [deque() for _ in range(partitions)]

    def route(self, most: int) -> int:
        """Lay up to ``most`` arrivals into the queues of their partitions; how many there were."""
        partitions = len(self._queues)
        with self._lock:
            moved = min(most, len(self._arrivals))
            for _ in range(moved):
                pending = self._arrivals.popleft()
                partition = pending.partition
                if partition is None:
                    partition = partition_of(pending.session_id or "", partitions)
                self._queues[partition].append(pending)
        return moved

    def waits(self, partition: int) -> bool:
        """Whether commands of this partition wait to be taken."""
        return bool(self._queues[partition])

    def take(self, partition: int, most_count: int, most_bytes: int, first: bool) -> list[Pending]:
        """The oldest of a partition that are not in flight, now in flight.

        With ``first`` the first one comes whatever its size: it begins a batch.
        """
        taken: list[Pending] = []
        with self._lock:
            queue, in_flight = self._queues[partition], self._in_flight[partition]
            while queue and len(taken) < most_count:
                most_bytes -= queue[0].size
                if most_bytes < 0 and not (first and not taken):
                    break
                taken.append(queue.popleft())
            in_flight.extend(taken)
        return taken

    def give_back(self, partition: int, count: int) -> None:
        """The last ``count`` taken of a partition wait again, at the front of its queue."""
        with self._lock:
            for _ in range(count):
                self._queues[partition].appendleft(self._in_flight[partition].pop())

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

    def left(self, up_to: int) -> list[Pending]:
        """The commands with a number up to this one that are still here, in order of acceptance."""
        with self._lock:
            return [pending for pending in merge(*self._all(), key=_in_order) if pending.number <= up_to]

    def _all(self) -> list[deque[Pending]]:
        return [*self._in_flight, *self._queues, self._arrivals]

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
