"""Books of what a publisher has on the disk: what is there alone, and what is to be removed. Knows no files."""

from collections import deque
from collections.abc import Callable, Sequence

from waypost.publisher.pending import Pending

Settled = Callable[[], None]
#: Commands to be removed from the disk, and whom to tell when they are.
Removal = tuple[list[Pending], Settled | None]


class Stored:
    """The part of the line that is on the disk alone: ``count`` commands with numbers from ``first`` to ``last``.

    First comes what dead publishers left, then what is our own, whose numbers, with gaps, are the rows in our
    file. Not thread-safe.
    """

    def __init__(self, left: int) -> None:
        self.count = self.last = left
        self.first = 1  # none has a lower number

    def append(self, number: int) -> None:
        """One of our own, newer than all."""
        if not self.count:
            self.first = number
        self.count += 1
        self.last = number

    def adopt(self, count: int, first: int) -> None:
        """So many that another publisher left, where nothing is stored; they are numbered from ``first`` on."""
        self.count, self.first, self.last = count, first, first + count - 1

    def take(self, own: int | None) -> int:
        """The oldest leaves: one of ``own`` with this number, or another's; the number that it has here."""
        number = self.first if own is None else own
        self.first = number + 1
        self.count -= 1
        return number

    def lose(self, count: int) -> None:
        """Some of the oldest can't be read. Of our own, the next ones have numbers that are at least as high."""
        self.first += count
        self.count -= count

    def up_to(self, number: int) -> int:
        """At most how many have a number up to this one."""
        return max(0, min(self.count, number - self.first + 1))


class Removals:
    """What is to be removed, oldest first. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Removal] = deque()

    def add(self, gone: list[Pending], settled: Settled | None) -> None:
        """The newest."""
        self._waiting.append((gone, settled))

    def take(self) -> list[Removal]:
        """All; the caller removes them, or gives them back."""
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def give_back(self, removals: Sequence[Removal]) -> None:
        """The oldest, which could not be removed."""
        self._waiting.extendleft(reversed(removals))
