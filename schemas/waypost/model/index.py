"""The index of one session, as the model holds it: numbers, names, times, pins and recent command ids, never data.

Owns how they are found and kept in order, and that a session of thousands is as fast as one of a hundred. Must not
know what a command means: that is :mod:`waypost.model.session`'s, which alone changes an index. Pure.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

from waypost.model.checkpoint import own_number
from waypost.model.retention import RetentionPolicy
from waypost.model.retention_index import RetentionIndex

DEDUP_WINDOW: Final = 256  # command ids that are remembered besides those of live checkpoints
# Forgetting waits until this many are there, so that a session at its cap forgets 64 at a time.
FORGET_ABOVE: Final = 320
# Above this number of checkpoints, retention looks into an index instead of at all of them.
LARGE: Final = 256
# If this many are added or removed in one step, updating sorted lists one by one takes longer than rebuilding them.
MANY: Final = 64


@dataclass(slots=True)
class Entry:
    """A checkpoint in the index. Times in microseconds; ``position`` is that of the command that made it."""

    number: int
    name: str
    taken_at: int
    recorded_at: int
    position: int
    command_id: str | None = None
    imported_id: str | None = None
    pinned: bool = False


class SeenCommand(NamedTuple):
    """A command id that no live checkpoint carries; ``number`` of the checkpoint it was about, if any."""

    position: int
    command_id: str
    number: int | None


class Session:
    """The index of one session. Built from stored rows by :meth:`restore`, changed only by ``evolve``."""

    __slots__ = (
        "_imported",
        "_known",
        "_numbers",
        "_pins",
        "_retention",
        "counter",
        "entries",
        "erased_at",
        "last_recorded_at",
        "policy",
        "recent",
        "session_id",
    )

    def __init__(self, session_id: str, counter: int = 0, policy: RetentionPolicy | None = None) -> None:
        self.session_id = session_id
        self.counter = counter  # the highest number ever given; never goes back
        self.policy = policy  # None: the deployment's default applies
        self.last_recorded_at: int | None = None  # of the last accepted command, the broker's clock
        self.erased_at: int | None = None  # of the first erase command, the broker's clock
        self.entries: dict[int, Entry] = {}
        self.recent: list[SeenCommand] = []  # rising positions
        self._numbers: list[int] = []  # rising
        self._known: dict[str, int | None] = {}
        self._imported: dict[str, list[int]] = {}  # rising
        self._pins = 0
        self._retention: RetentionIndex | None = None  # of a large session, once it is needed

    @classmethod
    def restore(
        cls,
        session_id: str,
        counter: int,
        policy: RetentionPolicy | None,
        entries: list[Entry],
        recent: list[SeenCommand],
        last_recorded_at: int | None = None,
        erased_at: int | None = None,
    ) -> "Session":
        """A session from what was stored, in any order."""
        session = cls(session_id, counter, policy)
        session.last_recorded_at = last_recorded_at
        session.erased_at = erased_at
        session.add_all(sorted(entries, key=attrgetter("number")))
        session.recent = sorted(recent)
        for remembered in session.recent:
            session._known[remembered.command_id] = remembered.number
        return session

    def __len__(self) -> int:
        return len(self._numbers)

    def live(self) -> list[Entry]:
        """The live entries, lowest number first."""
        return [self.entries[number] for number in self._numbers]

    def live_in_order(self, latest_first: bool = False) -> list[int]:
        """The live numbers, rising, or falling with ``latest_first``."""
        return self._numbers[::-1] if latest_first else self._numbers[:]

    def later_than(self, number: int) -> list[int]:
        """The live numbers above ``number``, rising."""
        return self._numbers[bisect_right(self._numbers, number) :]

    def lowest_to_drop(self) -> int | None:
        """The lowest live number that is neither pinned nor the first, where another one is about to follow."""
        if self._pins and (index := self.retention_index()) is not None:
            return index.lowest_to_drop()
        for number in islice(self._numbers, 1, None):
            if not self.entries[number].pinned:
                return number
        return None

    def retention_index(self) -> RetentionIndex | None:
        """Return a finder of the checkpoints that retention removes; None if looking at all of them is faster."""
        if len(self._numbers) <= LARGE:
            self._retention = None
        elif self._retention is None:
            self._retention = RetentionIndex(self.entries, self._numbers)
        return self._retention

    def find(self, identifier: str) -> Entry | None:
        """The live checkpoint with this id; failing that, the newest that was imported under it."""
        number = own_number(self.session_id, identifier)
        if number is not None and (entry := self.entries.get(number)) is not None:
            return entry
        numbers = self._imported.get(identifier)
        return self.entries[numbers[-1]] if numbers else None

    def knows(self, command_id: str) -> bool:
        """Return whether a command with this id was accepted within the remembered window."""
        return command_id in self._known

    def number_of(self, command_id: str) -> int | None:
        """Return the number of the checkpoint that a known command was about, if there was one."""
        return self._known.get(command_id)

    def pins(self) -> int:
        """Return how many live checkpoints are pinned."""
        return self._pins

    def removable(self, pinned: bool) -> tuple[int, ...]:
        """The live numbers, rising, without pinned ones unless ``pinned``."""
        if pinned or not self._pins:
            return tuple(self._numbers)
        return tuple([number for number in self._numbers if not self.entries[number].pinned])

    def weight(self) -> int:
        """Entries and remembered ids together: what the session costs in memory, in items."""
        indexed = 0 if self._retention is None else len(self._numbers)  # about as much again
        return len(self._numbers) + indexed + len(self.recent)

    # The following methods change the index, and are for evolve alone.

    def add(self, entry: Entry) -> None:
        """Take a live entry in, and the id of the command that made it."""
        number = entry.number
        if self._numbers and number < self._numbers[-1]:
            insort(self._numbers, number)
        else:
            self._numbers.append(number)
        self.entries[number] = entry
        if number > self.counter:
            self.counter = number
        if entry.command_id is not None:
            self._known[entry.command_id] = number
        if entry.imported_id is not None:
            insort(self._imported.setdefault(entry.imported_id, []), number)
        if entry.pinned:
            self._pins += 1
        if self._retention is not None:
            self._retention.added(entry)

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Take live entries in, in any order."""
        if len(entries) <= MANY:
            for entry in entries:
                self.add(entry)
            return
        self._retention = None
        for entry in entries:
            self.entries[entry.number] = entry
            if entry.command_id is not None:
                self._known[entry.command_id] = entry.number
            if entry.imported_id is not None:
                self._imported.setdefault(entry.imported_id, []).append(entry.number)
            self._pins += entry.pinned
        self._numbers = sorted(self.entries)
        self.counter = max(self.counter, self._numbers[-1])
        for imported_id in {entry.imported_id for entry in entries} - {None}:
            self._imported[imported_id or ""].sort()

    def replace(self, entry: Entry) -> None:
        """Put an entry in the place of a live one of the same number and pin."""
        former = self.entries[entry.number]
        self.entries[entry.number] = entry
        if self._retention is not None:
            self._retention.dropped(former)
            self._retention.added(entry)

    def pin(self, number: int, pinned: bool) -> None:
        """Pin a live entry, or unpin it."""
        entry = self.entries[number]
        if entry.pinned == pinned:
            return
        entry.pinned = pinned
        self._pins += 1 if pinned else -1
        if self._retention is not None:
            (self._retention.pinned if pinned else self._retention.unpinned)(entry)

    def drop(self, number: int) -> SeenCommand | None:
        """Take a live entry out; what is remembered of the command that made it, if it had an id."""
        entry = self.entries.pop(number)
        del self._numbers[bisect_left(self._numbers, number)]
        if entry.imported_id is not None:
            numbers = self._imported[entry.imported_id]
            del numbers[bisect_left(numbers, number)]
            if not numbers:
                del self._imported[entry.imported_id]
        self._pins -= entry.pinned
        if self._retention is not None:
            self._retention.dropped(entry)
        if entry.command_id is None:
            return None
        return self.remember(SeenCommand(entry.position, entry.command_id, number))

    def drop_all(self, numbers: Sequence[int]) -> list[SeenCommand]:
        """Take many live entries out, in this order; what is remembered of the commands that made them."""
        self._retention = None
        gone = set(numbers)
        dropped = [self.entries.pop(number) for number in numbers]
        self._numbers = [number for number in self._numbers if number not in gone]
        self._pins -= sum(entry.pinned for entry in dropped)
        for imported_id in {entry.imported_id for entry in dropped} - {None}:
            left = [number for number in self._imported.pop(imported_id or "") if number not in gone]
            if left:
                self._imported[imported_id or ""] = left
        return [
            self.remember(SeenCommand(entry.position, entry.command_id, entry.number))
            for entry in dropped
            if entry.command_id is not None
        ]

    def remember(self, remembered: SeenCommand) -> SeenCommand:
        """Keep a command id among the recent ones."""
        insort(self.recent, remembered)
        self._known[remembered.command_id] = remembered.number
        return remembered

    def forget_all(self) -> None:
        """Forget all command ids but those of live checkpoints."""
        for remembered in self.recent:
            del self._known[remembered.command_id]
        self.recent.clear()

    def erase(self, at: int) -> None:
        """Drop everything but the counter and the times; ``at`` is when the session was erased."""
        self.erased_at = at
        self.policy = None
        for held in (self.entries, self.recent, self._numbers, self._known, self._imported):
            held.clear()
        self._pins = 0
        self._retention = None

    def forget(self) -> int | None:
        """Forget down to DEDUP_WINDOW once FORGET_ABOVE is passed; the lowest position still remembered."""
        if len(self.recent) <= FORGET_ABOVE:
            return None
        for remembered in self.recent[:-DEDUP_WINDOW]:
            del self._known[remembered.command_id]
        del self.recent[:-DEDUP_WINDOW]
        return self.recent[0].position
