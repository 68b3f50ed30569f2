"""The retention policy and the functions that say what leaves. Pure; knows entries, not storage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from waypost.errors import InvalidCommandError

MAX_CHECKPOINTS_BOUNDS: Final = (2, 10_000)
COMPRESS_AFTER_BOUNDS: Final = (1, 10_000)
KEEP_RECENT_BOUNDS: Final = (0, 10_000)
MAX_AGE_BOUNDS_SECONDS: Final = (0.000_001, 3_155_760_000.0)  # one microsecond to 100 years


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Limits on how many checkpoints a session keeps, and how long, and whether it accepts unencrypted data.

    When there are more than ``compress_after``, all but the first, the last ``keep_recent`` and the latest of each name
    are removed; when there are more than ``max_checkpoints``, the oldest. ``max_age`` is in microseconds, None for no
    limit. Pinned checkpoints stay. If ``encrypted``, creates and imports with data that is not encrypted are rejected.
    A session stays so once it is.
    """

    max_checkpoints: int = 100
    compress_after: int = 50
    keep_recent: int = 20
    max_age: int | None = None
    encrypted: bool = False

    def __post_init__(self) -> None:
        for field, (low, high) in (
            ("max_checkpoints", MAX_CHECKPOINTS_BOUNDS),
            ("compress_after", COMPRESS_AFTER_BOUNDS),
            ("keep_recent", KEEP_RECENT_BOUNDS),
        ):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not low <= value <= high:
                raise InvalidCommandError("invalid-body", f"{field}: {value} is not between {low} and {high}")
        if self.max_age is not None and not (isinstance(self.max_age, int | float) and self.max_age > 0):
            raise InvalidCommandError(
                "invalid-body", "max_age: must be more than 0 seconds, or null for ever"
            )

    def changed(self, changes: Iterable[tuple[str, int | None]]) -> "RetentionPolicy":
        """Return this policy with other values of the named fields.

        Raises:
            InvalidCommandError: A value is out of bounds.
        """
        fields: dict[str, Any] = dict(changes)
        return replace(self, **fields)

    @property
    def max_pins(self) -> int:
        """Largest number of pinned checkpoints, which leaves room for the first and the newest."""
        return self.max_checkpoints - 2


class Kept(Protocol):
    """The view of retention on an entry of a session's index."""

    @property
    def number(self) -> int:
        """Position in the session, unique and rising."""
        ...

    @property
    def name(self) -> str:
        """Semantic name."""
        ...

    @property
    def recorded_at(self) -> int:
        """The broker's clock, microseconds."""
        ...

    @property
    def pinned(self) -> bool:
        """Exempt from retention."""
        ...


def removed_by_age(entries: Sequence[Kept], policy: RetentionPolicy, now: int) -> list[int]:
    """Numbers recorded before ``now - max_age``, except pinned ones and the newest. ``entries`` rise."""
    if policy.max_age is None:
        return []
    oldest = now - policy.max_age
    return [entry.number for entry in entries[:-1] if entry.recorded_at < oldest and not entry.pinned]


def removed_by_compression(entries: Sequence[Kept], policy: RetentionPolicy) -> list[int]:
    """Yield the entries that compression removes once there are more than ``compress_after``. ``entries`` are in
    ascending order.

    Stay: the first, the last ``keep_recent`` (at least the newest), the pinned, and of what lies between the
    latest of each name.
    """
    if len(entries) <= policy.compress_after:
        return []
    between = entries[1 : max(0, len(entries) - max(policy.keep_recent, 1))]
    seen: set[str] = set()
    removed = []
    for entry in reversed(between):
        if entry.name in seen:
            if not entry.pinned:
                removed.append(entry.number)
        else:
            seen.add(entry.name)
    removed.reverse()
    return removed


def removed_by_cap(entries: Sequence[Kept], policy: RetentionPolicy) -> list[int]:
    """Yield the entries to remove to reach ``max_checkpoints``. ``entries`` are in ascending order.

    The lowest that is neither pinned, the first nor the newest goes first; if that is not enough, the first.
    """
    excess = len(entries) - policy.max_checkpoints
    if excess <= 0:
        return []
    removed = []
    for entry in entries[1:-1]:
        if not entry.pinned:
            removed.append(entry.number)
            if len(removed) == excess:
                return removed
    if not entries[0].pinned:
        removed.insert(0, entries[0].number)
    return removed


class Removals(NamedTuple):
    """Numbers that leave, each list rising: too old, superseded by a later one of the name, and above the cap."""

    by_age: list[int]
    by_compression: list[int]
    by_cap: list[int]

    def numbers(self) -> list[int]:
        """All of them, rising."""
        return sorted([*self.by_age, *self.by_compression, *self.by_cap])


def removals(entries: Sequence[Kept], policy: RetentionPolicy, now: int, *, compress: bool) -> Removals:
    """Everything that leaves at ``now``: age first, then compression, then the cap.

    Age goes first, so that what is out of date anyway never pushes out what is not. Compression is for
    creates and policy changes; an import keeps what it brought as far as the cap allows, so that an exported
    session comes back whole.
    """
    by_age = removed_by_age(entries, policy, now)
    left = _without(entries, by_age)
    by_compression = removed_by_compression(left, policy) if compress else []
    left = _without(left, by_compression)
    return Removals(by_age, by_compression, removed_by_cap(left, policy))


def retention(entries: Sequence[Kept], policy: RetentionPolicy, now: int, *, compress: bool) -> list[int]:
    """Return the numbers of everything that leaves at ``now``, rising; see :func:`removals`."""
    return removals(entries, policy, now, compress=compress).numbers()


def _without(entries: Sequence[Kept], removed: list[int]) -> Sequence[Kept]:
    if not removed:
        return entries
    gone = set(removed)
    return [entry for entry in entries if entry.number not in gone]
