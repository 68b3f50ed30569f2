"""What a command means: ``decide`` may refuse, ``evolve`` never fails. Pure; the heart of Waypost.

A :class:`Session` is the index of one session: numbers, names, times, pins and recent command ids, never the
data itself. ``decide(session, command)`` looks and answers with a decision; ``evolve(session, command,
decision)`` makes the session what the decision says. Nothing here reads a clock, makes an id, or iterates
over an unordered set, so the same commands always give the same decisions.

The in-memory manager, the worker and replay all run this code; there is no second implementation.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple, assert_never

from waypost.checkpoint import checkpoint_id, own_number
from waypost.commands import (
    Action,
    Clear,
    Command,
    Configure,
    ConfigureDefaults,
    Create,
    Delete,
    Import,
    ImportItem,
    Pin,
    Rollback,
    Unpin,
)
from waypost.errors import InvalidCommandError
from waypost.retention import Policy, removed_by_age, retention
from waypost.text import MAX_CLAIMED_NUMBER

REMEMBERED: Final = 256  # command ids that are remembered besides those of live checkpoints
# Forgetting waits until this many are there, so that a session at its cap forgets 64 at a time.
FORGET_ABOVE: Final = 320


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


class Remembered(NamedTuple):
    """A command id that no live checkpoint carries; ``number`` of the checkpoint it was about, if any."""

    position: int
    command_id: str
    number: int | None


class Session:
    """The index of one session. Built from stored rows by :meth:`restore`, changed only by ``evolve``."""

    __slots__ = ("_imported", "_known", "_numbers", "counter", "entries", "policy", "recent", "session_id")

    def __init__(self, session_id: str, counter: int = 0, policy: Policy | None = None) -> None:
        self.session_id = session_id
        self.counter = counter  # the highest number ever given; never goes back
        self.policy = policy  # None: the deployment's default applies
        self.entries: dict[int, Entry] = {}
        self.recent: list[Remembered] = []  # rising positions
        self._numbers: list[int] = []  # rising
        self._known: dict[str, int | None] = {}
        self._imported: dict[str, list[int]] = {}

    @classmethod
    def restore(
        cls,
        session_id: str,
        counter: int,
        policy: Policy | None,
        entries: list[Entry],
        recent: list[Remembered],
    ) -> "Session":
        """A session from what was stored, in any order."""
        session = cls(session_id, counter, policy)
        for entry in sorted(entries, key=lambda entry: entry.number):
            session._add(entry)
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
        for number in islice(self._numbers, 1, None):
            if not self.entries[number].pinned:
                return number
        return None

    def find(self, identifier: str) -> Entry | None:
        """The live checkpoint with this id; failing that, the newest that was imported under it."""
        number = own_number(self.session_id, identifier)
        if number is not None and (entry := self.entries.get(number)) is not None:
            return entry
        numbers = self._imported.get(identifier)
        return self.entries[numbers[-1]] if numbers else None

    def knows(self, command_id: str) -> bool:
        """Whether a command with this id was accepted within the remembered window."""
        return command_id in self._known

    def number_of(self, command_id: str) -> int | None:
        """The number of the checkpoint that a known command was about, where there was one."""
        return self._known.get(command_id)

    def pins(self) -> int:
        """How many live checkpoints are pinned."""
        return sum(entry.pinned for entry in self.entries.values())

    def weight(self) -> int:
        """Entries and remembered ids together: what the session costs in memory, in items."""
        return len(self._numbers) + len(self.recent)

    # What follows changes the index and is for evolve alone.

    def _add(self, entry: Entry) -> None:
        if self._numbers and entry.number < self._numbers[-1]:
            insort(self._numbers, entry.number)
        else:
            self._numbers.append(entry.number)
        self.entries[entry.number] = entry
        self.counter = max(self.counter, entry.number)
        if entry.command_id is not None:
            self._known[entry.command_id] = entry.number
        if entry.imported_id is not None:
            insort(self._imported.setdefault(entry.imported_id, []), entry.number)

    def _drop(self, number: int) -> Remembered | None:
        entry = self.entries.pop(number)
        del self._numbers[bisect_left(self._numbers, number)]
        if entry.imported_id is not None:
            numbers = self._imported[entry.imported_id]
            numbers.remove(number)
            if not numbers:
                del self._imported[entry.imported_id]
        if entry.command_id is None:
            return None
        return self._remember(Remembered(entry.position, entry.command_id, number))

    def _remember(self, remembered: Remembered) -> Remembered:
        insort(self.recent, remembered)
        self._known[remembered.command_id] = remembered.number
        return remembered

    def _forget(self) -> int | None:
        """Forget down to REMEMBERED once FORGET_ABOVE is passed; the lowest position still remembered."""
        if len(self.recent) <= FORGET_ABOVE:
            return None
        for remembered in self.recent[:-REMEMBERED]:
            del self._known[remembered.command_id]
        del self.recent[:-REMEMBERED]
        return self.recent[0].position


# Decisions: all that evolve, storage and the result event need to know.


class Created(NamedTuple):
    """A checkpoint was appended; ``removed`` are the numbers that retention dropped."""

    entry: Entry
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pinned:
    """A checkpoint is exempt from retention now."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unpinned:
    """A checkpoint is subject to retention again."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """A checkpoint is gone; its number stays used. ``removed`` does not contain it."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Cleared:
    """All checkpoints are gone; ``removed`` names them."""

    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A rollback to ``number`` was recorded; ``removed`` are the dropped later ones and those too old."""

    number: int
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one imported item went: ``number``, and ``imported``, ``replaced`` or ``skipped``."""

    number: int
    outcome: str
    entry: Entry | None  # None for skipped
    item: ImportItem


@dataclass(frozen=True, slots=True)
class Imported:
    """An import was taken over, item by item; ``removed`` may name items of this very import."""

    placed: tuple[Placed, ...]
    removed: tuple[int, ...] = ()

    def count(self, outcome: str) -> int:
        """How many items had this outcome."""
        return sum(placed.outcome == outcome for placed in self.placed)


@dataclass(frozen=True, slots=True)
class Configured:
    """The session has this policy of its own now."""

    policy: Policy
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DefaultsConfigured:
    """Sessions of this partition without a policy of their own have this one from now on."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing changed, and why."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command was accepted before, and changed nothing now; ``number`` of the checkpoint it was about."""

    number: int | None


Accepted = Created | Pinned | Unpinned | Deleted | Cleared | RolledBack | Imported | Configured
Decision = Accepted | DefaultsConfigured | Rejected | Duplicate


def decide(session: Session, command: Command, default: Policy) -> Accepted | Rejected | Duplicate:
    """What ``command`` would do to ``session``, which stays as it is.

    ``default`` is the policy that applies where the session has none of its own.
    """
    if command.id is not None and session.knows(command.id):
        return Duplicate(session.number_of(command.id))
    try:
        return _decide(session, command, command.action, session.policy or default)
    except InvalidCommandError as refusal:
        return Rejected(refusal.code, refusal.message)


def _decide(session: Session, command: Command, action: Action, policy: Policy) -> Accepted:
    now = command.recorded_at
    match action:
        case Create():
            return _create(session, command, action, policy)
        case Pin():
            entry = _existing(session, action.checkpoint_id)
            if not entry.pinned and (pins := session.pins()) >= policy.max_pins:
                raise InvalidCommandError(
                    "pin-limit",
                    f"{pins} checkpoints of {session.session_id!r} are pinned and its policy allows "
                    f"{policy.max_pins}: unpin one, or raise max_checkpoints",
                )
            return Pinned(entry.number, _settle(session, policy, now, flip=entry))
        case Unpin():
            entry = _existing(session, action.checkpoint_id)
            return Unpinned(entry.number, _settle(session, policy, now, flip=entry, pinned=False))
        case Delete():
            number = _existing(session, action.checkpoint_id).number
            return Deleted(number, _settle(session, policy, now, gone=(number,)))
        case Clear():
            return Cleared(tuple(session.live_in_order()))
        case Rollback():
            number = _existing(session, action.checkpoint_id).number
            later = tuple(session.later_than(number)) if action.discard_later else ()
            return RolledBack(number, tuple(sorted(later + _settle(session, policy, now, gone=later))))
        case Import():
            return _import(session, command, action, policy)
        case Configure():
            changed = policy.changed(action.changes)
            if (pins := session.pins()) > changed.max_pins:
                raise InvalidCommandError(
                    "pin-limit",
                    f"{pins} checkpoints of {session.session_id!r} are pinned, so max_checkpoints must be at "
                    f"least {pins + 2}: unpin some first, or choose a larger one",
                )
            return Configured(changed, tuple(retention(session.live(), changed, now, compress=True)))
        case ConfigureDefaults():
            raise AssertionError("the default policy is the partition's, see waypost.defaults")
        case _:
            assert_never(action)


def _existing(session: Session, identifier: str) -> Entry:
    entry = session.find(identifier)
    if entry is None:
        raise InvalidCommandError(
            "unknown-checkpoint",
            f"{session.session_id!r} holds no checkpoint {identifier!r}: it was never made, belongs to "
            "another session, or was removed",
        )
    return entry


def _create(session: Session, command: Command, action: Create, policy: Policy) -> Created:
    entry = Entry(
        number=session.counter + 1,
        name=action.name,
        taken_at=command.taken_at,
        recorded_at=command.recorded_at,
        position=command.position,
        command_id=command.id,
    )
    size = len(session) + 1
    # The usual cases, below the cap and at it, need no look at all entries.
    if policy.max_age is None and size <= policy.compress_after:
        if size <= policy.max_checkpoints:
            return Created(entry)
        if size == policy.max_checkpoints + 1 and (lowest := session.lowest_to_drop()) is not None:
            return Created(entry, (lowest,))
    entries = session.live()
    entries.append(entry)
    return Created(entry, tuple(retention(entries, policy, command.recorded_at, compress=True)))


def _settle(
    session: Session,
    policy: Policy,
    now: int,
    *,
    gone: tuple[int, ...] = (),
    flip: Entry | None = None,
    pinned: bool = True,
) -> tuple[int, ...]:
    """What is too old once the command took effect: without ``gone``, with ``flip`` pinned or not."""
    if policy.max_age is None:
        return ()
    dropped = set(gone)
    entries = [entry for entry in session.live() if entry.number not in dropped]
    if flip is not None:
        entries = [replace(entry, pinned=pinned) if entry is flip else entry for entry in entries]
    return tuple(removed_by_age(entries, policy, now))


def _import(session: Session, command: Command, action: Import, policy: Policy) -> Imported:
    taken = dict(session.entries)
    counter = session.counter
    placed = []
    for item in action.checkpoints:
        number = own_number(session.session_id, item.id)
        imported_id = None
        # A claim far above the counter would use up the numbers: that item is placed like a foreign one.
        if number is None or number > max(MAX_CLAIMED_NUMBER, counter):
            number, imported_id = counter + 1, item.id
        there = taken.get(number)
        if there is not None and action.on_conflict == "reject":
            raise InvalidCommandError(
                "conflict",
                f"checkpoint {item.id!r} exists already and on_conflict is 'reject': nothing was imported; "
                "use 'skip' or 'replace', or import into an empty session",
            )
        if there is not None and action.on_conflict == "skip":
            placed.append(Placed(number, "skipped", None, item))
            continue
        # A replaced checkpoint keeps its number, its pin and the memory of the command that made it.
        entry = Entry(
            number=number,
            name=item.name,
            taken_at=item.timestamp,
            recorded_at=command.recorded_at,
            position=there.position if there else command.position,
            command_id=there.command_id if there else None,
            imported_id=there.imported_id if there else imported_id,
            pinned=there.pinned if there else False,
        )
        taken[number] = entry
        counter = max(counter, number)
        placed.append(Placed(number, "replaced" if there else "imported", entry, item))
    entries = [taken[number] for number in sorted(taken)]
    removed = retention(entries, policy, command.recorded_at, compress=False)
    return Imported(tuple(placed), tuple(removed))


class Memory(NamedTuple):
    """What a command changed in the memory of command ids: additions, and the lowest position still kept."""

    added: tuple[Remembered, ...]
    forgotten_below: int | None


_UNCHANGED: Final = Memory((), None)


def evolve(session: Session, command: Command, decision: Accepted) -> Memory:
    """Make ``session`` what ``decision`` says. Never fails for a decision that ``decide`` just made."""
    about: int | None = None
    added: list[Remembered] = []
    match decision:
        case Created():
            session._add(decision.entry)
        case Pinned() | Unpinned():
            about = decision.number
            session.entries[about].pinned = isinstance(decision, Pinned)
        case Deleted():
            about = decision.number
            if (remembered := session._drop(about)) is not None:
                added.append(remembered)
        case RolledBack():
            about = decision.number
        case Imported():
            for placed in decision.placed:
                if placed.entry is None:
                    continue
                if placed.outcome == "replaced":
                    session.entries[placed.number] = placed.entry
                else:
                    session._add(placed.entry)
        case Configured():
            session.policy = decision.policy
        case Cleared():
            pass
        case _:
            assert_never(decision)
    for number in decision.removed:
        if (remembered := session._drop(number)) is not None:
            added.append(remembered)
    if command.id is not None and not isinstance(decision, Created):
        added.append(session._remember(Remembered(command.position, command.id, about)))
    if not added:
        return _UNCHANGED
    return Memory(tuple(added), session._forget())


def removed_ids(session_id: str, numbers: tuple[int, ...]) -> list[str]:
    """The ids of removed numbers."""
    return [checkpoint_id(session_id, number) for number in numbers]
