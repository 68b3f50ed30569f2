"""A session's checkpoints over time as a picture: one lane for each name, idle time collapsed. Pure geometry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Final

from waypost.model.index import Entry
from waypost.model.times import from_micros
from waypost_worker.console import text

WIDTH: Final = 1100
_LEFT: Final = 150
_RIGHT: Final = 1085
_TOP: Final = 22
_LANE: Final = 28
_MOST_LANES: Final = 12
_APART: Final = 9  # pixels between two dots of a lane; what is closer is one dot
_IDLE_SHARE: Final = 0.25
_IDLE_TIMES_MEDIAN: Final = 10
_IDLE_MICROS: Final = 60_000_000
_MICROS: Final = 1_000_000
_REMOVED: Final = "removed"


@dataclass(frozen=True, slots=True)
class Dot:
    """Checkpoints at about one moment: the number of the last one, how many there are, and whether one is pinned."""

    x: int
    number: int
    count: int
    pinned: bool
    said: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane for a name, or for the rest of many names; ``gone`` are removed checkpoints, which have no name."""

    name: str
    y: int
    dots: tuple[Dot, ...]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """A stretch without checkpoints that is drawn shorter than it was."""

    x: int
    said: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Picture of a session. ``start`` and ``end`` are the times at its left and right."""

    lanes: tuple[Lane, ...]
    idle: tuple[Idle, ...]
    height: int
    start: datetime
    end: datetime
    width: int = WIDTH
    left: int = _LEFT
    right: int = _RIGHT


def timeline(entries: Sequence[Entry]) -> Timeline | None:
    """Return the picture of live entries, lowest number first; None if there are none."""
    if not entries:
        return None
    places, idle = _places(entries)
    names = list(dict.fromkeys(entry.name for entry in entries))
    own = names if len(names) <= _MOST_LANES else names[: _MOST_LANES - 1]
    rows: dict[str, list[tuple[int, Entry]]] = {name: [] for name in own}
    others = f"{len(names) - len(own)} other names"
    for place, entry in zip(places, entries, strict=True):
        rows.setdefault(entry.name if entry.name in own else others, []).append((place, entry))
    lanes = [
        Lane(name, _TOP + at * _LANE, tuple(_dots(placed))) for at, (name, placed) in enumerate(rows.items())
    ]
    if gaps := _gaps(places, entries):
        lanes.append(Lane(_REMOVED, _TOP + len(lanes) * _LANE, tuple(gaps), gone=True))
    taken = [entry.taken_at for entry in entries]
    return Timeline(
        tuple(lanes),
        tuple(idle),
        _TOP + len(lanes) * _LANE + 12,
        from_micros(min(taken)),
        from_micros(max(taken)),
    )


def _places(entries: Sequence[Entry]) -> tuple[list[int], list[Idle]]:
    """Pixels from the left. Agents' clocks may go backwards; the picture doesn't."""
    moments = []
    latest = entries[0].taken_at
    for entry in entries:
        latest = max(latest, entry.taken_at)
        moments.append(latest)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    total = sum(gaps)
    if not total:
        step = (_RIGHT - _LEFT) / max(len(entries), 2)
        return [round(_LEFT + step * (at + 0.5)) for at in range(len(entries))], []
    usual = max(median(gaps), 1)
    idle_from = max(_IDLE_SHARE * total, _IDLE_TIMES_MEDIAN * usual, _IDLE_MICROS)
    long = [gap > idle_from for gap in gaps]
    busy = sum(gap for gap, idle in zip(gaps, long, strict=True) if not idle)
    drawn = [max(busy, 1) / 12 if idle else gap for gap, idle in zip(gaps, long, strict=True)]
    scale = (_RIGHT - _LEFT) / sum(drawn)
    places, idles, at = [_LEFT], [], float(_LEFT)
    for gap, width, idle in zip(gaps, drawn, long, strict=True):
        if idle:
            idles.append(Idle(round(at + width * scale / 2), f"{text.span(gap / _MICROS)} idle"))
        at += width * scale
        places.append(round(at))
    return places, idles


def _dots(placed: Sequence[tuple[int, Entry]]) -> list[Dot]:
    groups: list[tuple[int, list[Entry]]] = []
    for x, entry in placed:
        if groups and x - groups[-1][0] < _APART:
            groups[-1][1].append(entry)
        else:
            groups.append((x, [entry]))
    return [
        Dot(
            x,
            group[-1].number,
            len(group),
            any(entry.pinned for entry in group),
            f"#{group[-1].number}"
            if len(group) == 1
            else f"{len(group)} checkpoints, #{group[0].number} to #{group[-1].number}",
        )
        for x, group in groups
    ]


def _gaps(places: Sequence[int], entries: Sequence[Entry]) -> list[Dot]:
    found: list[Dot] = []
    before, x_before = 0, places[0]
    for x, entry in zip(places, entries, strict=True):
        missing = entry.number - before - 1
        if missing > 0:
            first, last = before + 1, entry.number - 1
            said = f"#{first} removed" if missing == 1 else f"{missing:,} removed, #{first} to #{last}"
            middle = (x + x_before) // 2
            if not found or middle - found[-1].x >= _APART:
                found.append(Dot(middle, last, missing, False, said))
        before, x_before = entry.number, x
    return found
