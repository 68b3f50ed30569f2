"""Removals by retention in a large session, found without looking at all of its checkpoints. Pure.

The rules are those of :mod:`waypost.model.retention`, which looks at every checkpoint for each command: that is the
fastest way for a hundred of them, and takes milliseconds for ten thousand. Here what each rule asks for is kept in
order while checkpoints come and go, so a command costs what it removes. Tests compare the two on the same sessions.

Owned by one :class:`waypost.model.index.Session`, whose entries and numbers it shares.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, merge
from itertools import pairwise

from waypost.model.retention import Kept, RetentionPolicy


@dataclass(frozen=True, slots=True)
class Change:
    """A command's changes to the live checkpoints before retention looks at them.

    ``added`` are ascending numbers of new checkpoints, ``gone`` those that it removes; ``renewed`` are recorded again.
    ``pinned`` and ``unpinned`` name one that it pins or unpins.
    """

    added: Sequence[int] = ()
    gone: frozenset[int] = frozenset()
    renewed: frozenset[int] = frozenset()
    pinned: int | None = None
    unpinned: int | None = None


NOTHING = Change()


class RetentionIndex:
    """The unpinned checkpoints by number, by age, and by the later one of the same name that makes each superfluous.

    Both heaps keep what is no longer true until it comes up: then it is dropped.
    """

    def __init__(self, entries: Mapping[int, Kept], numbers: list[int]) -> None:
        self._entries = entries
        self._numbers = numbers
        self._by_name: dict[str, list[int]] = {}  # rising numbers
        self._unpinned: list[int] = []  # rising
        self._ages: list[tuple[int, int]] = []  # (recorded_at, number) of the unpinned
        self._superseded: list[tuple[int, int]] = []  # (next number of the same name, number) of the unpinned
        self._build()

    def _build(self) -> None:
        entries = [self._entries[number] for number in self._numbers]
        self._by_name.clear()
        for entry in entries:
            self._by_name.setdefault(entry.name, []).append(entry.number)
        self._unpinned[:] = [entry.number for entry in entries if not entry.pinned]
        self._ages = [(entry.recorded_at, entry.number) for entry in entries if not entry.pinned]
        self._superseded = [
            (later, number)
            for numbers in self._by_name.values()
            for number, later in pairwise(numbers)
            if not self._entries[number].pinned
        ]
        heapify(self._ages)
        heapify(self._superseded)

    # Following the session.

    def added(self, entry: Kept) -> None:
        """Take note of a checkpoint that the session now has."""
        number = entry.number
        numbers = self._by_name.setdefault(entry.name, [])
        at = bisect_left(numbers, number)
        numbers.insert(at, number)
        if at and not self._entries[numbers[at - 1]].pinned:
            heappush(self._superseded, (number, numbers[at - 1]))
        if not entry.pinned:
            self._take(entry)
        self._tidy()

    def dropped(self, entry: Kept) -> None:
        """Take note of a checkpoint that the session no longer has."""
        numbers = self._by_name[entry.name]
        at = bisect_left(numbers, entry.number)
        del numbers[at]
        if not numbers:
            del self._by_name[entry.name]
        elif 0 < at < len(numbers) and not self._entries[numbers[at - 1]].pinned:
            heappush(self._superseded, (numbers[at], numbers[at - 1]))
        if not entry.pinned:
            del self._unpinned[bisect_left(self._unpinned, entry.number)]

    def unpinned(self, entry: Kept) -> None:
        """Take note that a checkpoint is no longer pinned."""
        self._take(entry)
        self._tidy()

    def pinned(self, entry: Kept) -> None:
        """Take note that a checkpoint is pinned now."""
        del self._unpinned[bisect_left(self._unpinned, entry.number)]

    def _tidy(self) -> None:
        # While the policy has no rule about age or names, nobody looks at a heap and drops what is outdated.
        if len(self._ages) + len(self._superseded) > 4 * len(self._numbers) + 64:
            self._build()

    def _take(self, entry: Kept) -> None:
        insort(self._unpinned, entry.number)
        heappush(self._ages, (entry.recorded_at, entry.number))
        if (later := self._later(entry.number)) is not None:
            heappush(self._superseded, (later, entry.number))

    def _later(self, number: int) -> int | None:
        """Return the next number of the same name."""
        numbers = self._by_name[self._entries[number].name]
        at = bisect_right(numbers, number)
        return numbers[at] if at < len(numbers) else None

    # Removals by the rules.

    def lowest_to_drop(self) -> int | None:
        """Return the lowest live number that is neither pinned nor the first."""
        for number in self._unpinned[:2]:
            if number != self._numbers[0]:
                return number
        return None

    def too_old(self, policy: RetentionPolicy, now: int, change: Change = NOTHING) -> list[int]:
        """Return, rising, what the age removes: see :func:`waypost.model.retention.removed_by_age`."""
        if policy.max_age is None:
            return []
        oldest, newest = now - policy.max_age, self._newest(change)
        looked_at: list[tuple[int, int]] = []
        while self._ages and self._ages[0][0] < oldest:
            item = heappop(self._ages)
            entry = self._entries.get(item[1])
            if entry is not None and not entry.pinned and entry.recorded_at == item[0]:
                looked_at.append(item)
        for item in looked_at:  # a decision changes nothing
            heappush(self._ages, item)
        found = {number for _, number in looked_at}
        if change.unpinned is not None and self._entries[change.unpinned].recorded_at < oldest:
            found.add(change.unpinned)
        return sorted(found - change.gone - change.renewed - {change.pinned, newest})

    def removed(
        self, policy: RetentionPolicy, now: int, *, compress: bool, change: Change = NOTHING
    ) -> list[int]:
        """Return, rising, what all rules remove: see :func:`waypost.model.retention.retention`.

        ``change`` may only add and renew.
        """
        aged = self.too_old(policy, now, change)
        count = len(self._numbers) + len(change.added) - len(aged)
        removed = list(aged)
        first, newest = self._first(aged, change), self._newest(change)
        if compress and count > policy.compress_after:
            superfluous = self._superfluous(aged, max(policy.keep_recent, 1) - len(change.added), first)
            removed += superfluous
            count -= len(superfluous)
        if (excess := count - policy.max_checkpoints) > 0:
            removed += self._beyond(excess, set(removed), first, newest, change)
        removed.sort()
        return removed

    def _newest(self, change: Change) -> int | None:
        if change.added:
            return max(change.added[-1], self._numbers[-1] if self._numbers else 0)
        return next((number for number in reversed(self._numbers) if number not in change.gone), None)

    def _first(self, aged: list[int], change: Change) -> int | None:
        gone = set(aged)
        live = next((number for number in self._numbers if number not in gone), None)
        lowest = change.added[0] if change.added else None
        return min((one for one in (live, lowest) if one is not None), default=None)

    def _superfluous(self, aged: list[int], recent: int, first: int | None) -> list[int]:
        """Return what compression removes; ``recent`` is how many of the live ones stay as such."""
        last = self._last_before(recent, aged)
        if last is None:
            return []
        gone = set(aged)
        looked_at: list[tuple[int, int]] = []
        while self._superseded and self._superseded[0][0] <= last:
            item = heappop(self._superseded)
            entry = self._entries.get(item[1])
            if entry is not None and not entry.pinned and self._later(item[1]) == item[0]:
                looked_at.append(item)
        for item in looked_at:  # a decision changes nothing
            heappush(self._superseded, item)
        return [
            number
            for number in {number for _, number in looked_at}
            if number not in gone and number != first and self._is_superseded(number, gone, last)
        ]

    def _is_superseded(self, number: int, gone: set[int], last: int) -> bool:
        """Return whether one of the same name follows, up to ``last``, that is not removed."""
        numbers = self._by_name[self._entries[number].name]
        later = range(bisect_right(numbers, number), bisect_right(numbers, last))
        return any(numbers[at] not in gone for at in later)

    def _last_before(self, count: int, gone: list[int]) -> int | None:
        """Return the number behind which ``count`` others are live, those that are ``gone`` not counted."""
        at = len(self._numbers) - 1 - count
        while at >= 0:
            number = self._numbers[at]
            behind = len(gone) - bisect_right(gone, number)
            wanted = len(self._numbers) - 1 - count - behind
            if wanted == at and (behind == len(gone) or gone[len(gone) - behind - 1] != number):
                return number
            at = min(wanted, at - 1)
        return None

    def _beyond(
        self, excess: int, removed: set[int], first: int | None, newest: int | None, change: Change
    ) -> list[int]:
        """Return what the cap removes of what is left."""
        found: list[int] = []
        for number in merge(self._unpinned, change.added):
            if number not in removed and number != first and number != newest:
                found.append(number)
                if len(found) == excess:
                    return found
        if first is not None and first != newest and self._is_unpinned(first, change.added):
            found.append(first)
        return found

    def _is_unpinned(self, number: int, added: Iterable[int]) -> bool:
        entry = self._entries.get(number)
        return number in added if entry is None else not entry.pinned
