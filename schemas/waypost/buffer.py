"""What the publisher has accepted and Kafka has not: bounded in commands and bytes, in order, thread-safe.

Knows nothing of Kafka. The sender looks at the oldest with :meth:`Buffer.peek` and takes them out with
:meth:`Buffer.done` only when Kafka has acknowledged them, so what was accepted is never between two places.
"""

import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Literal, NamedTuple

from waypost.errors import BufferFullError

OnFull = Literal["raise", "block", "drop_oldest"]
_OVERHEAD: Final = 400  # what headers and objects cost besides key and value, in bytes


class Pending(NamedTuple):
    """An accepted command. ``session_id`` is None for commands of a partition; ``partition`` then names it."""

    command_id: str
    session_id: str | None
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int | None = None

    @property
    def size(self) -> int:
        """Bytes that count against the bound."""
        return len(self.value) + _OVERHEAD


class Buffer:
    """A bounded first-in-first-out buffer of accepted commands."""

    def __init__(
        self,
        max_count: int,
        max_bytes: int,
        on_full: OnFull,
        wake: Callable[[], None],
        on_drop: Callable[[Pending], None],
    ) -> None:
        self.accepted = 0  # ever
        self.taken = 0  # ever: delivered, failed or dropped
        self.bytes = 0
        self._pending: deque[Pending] = deque()
        self._in_flight = 0  # the oldest so many are with Kafka and can't be dropped
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._on_full = on_full
        self._wake = wake
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._closed = False

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, pending: Pending, timeout: float | None = None) -> None:
        """Accept a command, or BufferFullError. ``timeout`` bounds the waiting of ``on_full="block"``."""
        size = pending.size
        dropped: list[Pending] = []
        with self._lock:
            if not self._fits(size):
                self._make_room(size, dropped, timeout)
            self._pending.append(pending)
            self.bytes += size
            self.accepted += 1
            wake = len(self._pending) - self._in_flight == 1
        for one in dropped:
            self._on_drop(one)
        if wake:
            self._wake()

    def _fits(self, size: int) -> bool:
        return len(self._pending) < self._max_count and self.bytes + size <= self._max_bytes

    def _make_room(self, size: int, dropped: list[Pending], timeout: float | None) -> None:
        full = (
            f"the publisher's buffer is full ({len(self._pending)} commands, {self.bytes} bytes): Kafka is away "
            "or slower than this agent. This command was not accepted, those in the buffer are kept; try again "
            "later, or raise max_buffer_count or max_buffer_bytes"
        )
        if size > self._max_bytes:
            raise BufferFullError(full)
        if self._on_full == "drop_oldest":
            while not self._fits(size) and len(self._pending) > self._in_flight:
                oldest = self._pending[self._in_flight]
                del self._pending[self._in_flight]
                self.bytes -= oldest.size
                self.taken += 1
                dropped.append(oldest)
        elif self._on_full == "block":
            self._room.wait_for(lambda: self._closed or self._fits(size), timeout)
        if not self._fits(size) or self._closed:
            raise BufferFullError(full)

    def peek(self, most_count: int, most_bytes: int) -> list[Pending]:
        """The oldest commands, at least one if there is one. They count as in flight until :meth:`done`."""
        with self._lock:
            chosen: list[Pending] = []
            size = 0
            for pending in islice(self._pending, most_count):
                size += pending.size
                if chosen and size > most_bytes:
                    break
                chosen.append(pending)
            self._in_flight = len(chosen)
            return chosen

    def done(self, finished: set[int], peeked: int) -> None:
        """Take out the commands at these places of the last peek; the others stay at the front, in order."""
        with self._lock:
            kept = []
            for index in range(peeked):
                pending = self._pending.popleft()
                if index in finished:
                    self.bytes -= pending.size
                    self.taken += 1
                else:
                    kept.append(pending)
            self._pending.extendleft(reversed(kept))
            self._in_flight = 0
            self._room.notify_all()

    def close(self) -> None:
        """Let nobody wait for room any more."""
        with self._lock:
            self._closed = True
            self._room.notify_all()
