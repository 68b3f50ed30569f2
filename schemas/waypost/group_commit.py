"""Several threads, one commit: who comes while another writes is written together with all who wait.

Knows nothing of what is written or where.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

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
