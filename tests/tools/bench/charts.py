"""Charts as SVG: bars by name, and curves over a number. Pure; what is drawn is decided in picture.py.

Narrow, with large letters, so that a chart can be read on a phone. Names of fonts are the system's own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from textwrap import wrap
from typing import Final, Literal, NamedTuple

WIDTH: Final = 600
INK, QUIET, GRID, PAPER = "#1f2933", "#52606d", "#e4e7eb", "#ffffff"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_TOP: Final = 64
_SMALL, _NORMAL, _LARGE = 12, 14, 17
_LINE: Final = 16  # of small text
_LETTERS: Final = 86  # of it that fit into a line
_NAMES: Final = 196  # width of the names left of bars
_PLOT_LEFT: Final = 70
_PLOT_RIGHT: Final = 372
_PLOT_HEIGHT: Final = 280
_APART: Final = 17  # of the names right of curves


class Bar(NamedTuple):
    """A bar: its name, a line that explains it, the spread of what was measured, and its color."""

    name: str
    note: str
    spread: Mapping[str, float]
    color: str


class Curve(NamedTuple):
    """Points (place, value) with the name that stands next to the last one."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


class Axis(NamedTuple):
    """Axis: its title says in words what it counts."""

    title: str
    scale: Literal["linear", "log"] = "log"


def bar_chart(title: str, subtitle: str, axis: str, bars: Sequence[Bar], notes: Sequence[str]) -> str:
    """Draw horizontal bars with the lowest and highest measurement as a thin line; the SVG's text."""
    left, right = 20 + _NAMES, WIDTH - 70
    step, most = 50, max(bar.spread["max"] for bar in bars)
    ticks = _linear_ticks(most)
    scale = (right - left) / max(most, ticks[-1])
    bottom = _TOP + step * len(bars) + 4
    body = [_text(20, 28, title, _LARGE, weight=600), _text(20, 48, subtitle, color=QUIET)]
    for tick in ticks:
        x = left + tick * scale
        body += [
            f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="{GRID}"/>',
            _text(x, bottom + 18, f"{tick:,.0f}", _SMALL, color=QUIET, anchor="middle"),
        ]
    for place, bar in enumerate(bars):
        y = _TOP + step * place + 8
        low, middle, high = (left + bar.spread[part] * scale for part in ("min", "median", "max"))
        body += [
            _text(left - 10, y + 14, bar.name, weight=600, anchor="end"),
            _text(left - 10, y + 31, bar.note, _SMALL, color=QUIET, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{middle - left:.1f}" height="32" rx="3" fill="{bar.color}"/>',
            f'<path d="M{low:.1f} {y + 16}H{high:.1f}" stroke="{INK}"/>',
            _text(max(middle, high) + 8, y + 21, f"{bar.spread['median']:,.0f}", weight=600),
        ]
    body.append(_text((left + right) / 2, bottom + 38, axis, color=QUIET, anchor="middle"))
    return _sheet(title, body, bottom + 62, notes)


def curve_chart(
    title: str, subtitle: str, across: Axis, up: Axis, curves: Sequence[Curve], notes: Sequence[str]
) -> str:
    """Draw curves over measured places, each named next to its end; the SVG's text."""
    places = sorted({place for curve in curves for place, _ in curve.points})
    values = [value for curve in curves for _, value in curve.points]
    bottom = _TOP + 16 + _PLOT_HEIGHT
    ticks = _ticks(up.scale, min(values), max(values))
    x_of = _scale("log", places[0], places[-1], _PLOT_LEFT + 14, _PLOT_RIGHT - 14)
    y_of = _scale(up.scale, ticks[0], ticks[-1], bottom, bottom - _PLOT_HEIGHT)
    body = [
        _text(20, 28, title, _LARGE, weight=600),
        _text(20, 48, subtitle, color=QUIET),
        _text(20, _TOP + 6, up.title, _SMALL, color=QUIET),
    ]
    for tick in ticks:
        body += [
            f'<path d="M{_PLOT_LEFT} {y_of(tick):.1f}H{_PLOT_RIGHT}" stroke="{GRID}"/>',
            _text(_PLOT_LEFT - 8, y_of(tick) + 5, f"{tick:,g}", _SMALL, color=QUIET, anchor="end"),
        ]
    for place in places:
        body.append(_text(x_of(place), bottom + 18, f"{place:,g}", _SMALL, color=QUIET, anchor="middle"))
    body.append(
        _text((_PLOT_LEFT + _PLOT_RIGHT) / 2, bottom + 38, across.title, color=QUIET, anchor="middle")
    )
    ends = _spread_out([y_of(curve.points[-1][1]) for curve in curves], _TOP + 16, bottom)
    for curve, label in zip(curves, ends, strict=True):
        drawn = [(x_of(place), y_of(value)) for place, value in curve.points]
        dashes = ' stroke-dasharray="5 4"' if curve.dashed else ""
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn)
        x, y = drawn[-1]
        body += [
            f'<path d="M{line}" fill="none" stroke="{curve.color}" stroke-width="2.5"{dashes}/>',
            f'<path d="M{x + 5:.1f} {y:.1f}L{_PLOT_RIGHT + 8} {label:.1f}" stroke="{curve.color}" '
            'stroke-width="0.8" fill="none"/>',
            *(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="{curve.color}" stroke-width="2" '
                f'fill="{PAPER if curve.dashed else curve.color}"/>'
                for x, y in drawn
            ),
            _text(_PLOT_RIGHT + 12, label + 5, curve.name, color=curve.color, weight=600, size=13),
        ]
    return _sheet(title, body, bottom + 62, notes)


def _ticks(scale: str, lowest: float, highest: float) -> list[float]:
    if scale == "linear":
        return _linear_ticks(highest, beyond=True)
    first, last = floor(log10(max(lowest, 0.1))), ceil(log10(highest * 1.02))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _linear_ticks(highest: float, *, beyond: bool = False) -> list[float]:
    """Round numbers from 0, at most six; the last one is not above ``highest`` unless ``beyond``."""
    rough = highest / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * count for count in range((ceil if beyond else floor)(highest / step) + 1)]


def _scale(kind: str, low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Map values from ``low`` to ``high`` to places from ``start`` to ``end``."""
    of = log10 if kind == "log" else float
    whole = of(high) - of(low)

    def place(value: float) -> float:
        return start + (end - start) * ((of(max(value, low)) - of(low)) / whole if whole else 0.5)

    return place


def _spread_out(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Move places apart, so that names do not overlap, and keep their order."""
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    at = top - _APART
    for index in order:
        at = placed[index] = max(wanted[index], at + _APART)
    at = bottom + _APART
    for index in reversed(order):
        at = placed[index] = min(placed[index], at - _APART)
    return placed


def _sheet(title: str, body: Iterable[str], height: float, notes: Sequence[str]) -> str:
    lines = [*body]
    notes = [line for note in notes for line in wrap(note, _LETTERS)]
    for row, note in enumerate(notes):
        lines.append(_text(20, height + _LINE * row, note, _SMALL, color=QUIET))
    height += _LINE * len(notes) + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-family="{_FONT}">\n<title>{escape(title)}</title>\n'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="{PAPER}"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def _text(
    x: float,
    y: float,
    text: str,
    size: int = _NORMAL,
    *,
    weight: int = 400,
    anchor: str = "start",
    color: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{color}">{escape(text)}</text>'
    )
