"""The report as a picture: throughput bars with their spread, latency percentiles on a logarithmic scale. SVG."""

from collections.abc import Mapping
from html import escape
from math import ceil, log10
from typing import Any, Final

from tests.bench.report import MODES, PERCENTILES, TITLES

_WIDTH: Final = 860
_COLOURS: Final = {"bare": "#8a94a6", "service": "#2563eb", "copy": "#c7ccd6"}
_BAR: Final = 24


def draw(report: Mapping[str, Any]) -> str:
    """The SVG's text."""
    body: list[str] = []
    y = _throughput(body, report, 30)
    y = _latency(body, report, y + 40)
    machine, plan = report["machine"], report["configuration"]["plan"]
    note = (
        f"{machine['cpus']} x {machine['cpu']}; creates of 1 KB over {plan['sessions']:,} sessions, "
        f"{plan['partitions']} partitions; bars are medians of {plan['repeats']} runs, lines run from lowest to "
        "highest"
    )
    body.append(_text(20, y + 26, note, size=11, colour="#5b6472"))
    height = y + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _throughput(body: list[str], report: Mapping[str, Any], y: int) -> int:
    bars = [
        (f"{TITLES[system]}, {title}", figures["spread"], _COLOURS[system])
        for mode, title in MODES.items()
        for system, figures in report["throughput"][mode].items()
    ]
    bars += [
        (f"COPY alone, batches of {batch}", figures["spread"], _COLOURS["copy"])
        for batch, figures in report["copy"].items()
    ]
    most = max(spread["max"] for _, spread, _ in bars) * 1.08
    body.append(_text(20, y, "Commands a second", size=15, weight="bold"))
    for label, spread, colour in bars:
        y += _BAR + 6
        _bar(body, y, label, colour, spread, lambda value: value / most, f"{spread['median']:,.0f}")
    return y


def _latency(body: list[str], report: Mapping[str, Any], y: int) -> int:
    systems = [figures for rate in report["latency"].values() for figures in rate.values()]
    top = 10 ** ceil(log10(max(figures[name]["max"] for figures in systems for name in PERCENTILES) * 1.2))

    def place(value: float) -> float:
        return max(0.0, log10(max(value, 0.5) / 0.5) / log10(top / 0.5))

    title = "Publish to visible result, milliseconds (logarithmic)"
    body.append(_text(20, y, title, size=15, weight="bold"))
    for rate, by_system in report["latency"].items():
        for name in PERCENTILES:
            for system, figures in by_system.items():
                y += _BAR
                label = f"{TITLES[system]}, {int(rate):,}/s, {name}"
                spread = figures[name]
                _bar(body, y, label, _COLOURS[system], spread, place, f"{spread['median']:.1f}")
            y += 8
    return y


def _bar(
    body: list[str], y: int, label: str, colour: str, spread: Mapping[str, float], place: Any, value: str
) -> None:
    left, right = 300, _WIDTH - 90
    across = right - left
    low, middle, high = (left + across * place(spread[name]) for name in ("min", "median", "max"))
    at = y - 6
    body += [
        _text(left - 8, y - 2, label, anchor="end"),
        f'<rect x="{left}" y="{y - 15}" width="{middle - left:.1f}" height="18" fill="{colour}"/>',
        f'<path d="M{low:.1f} {at}H{high:.1f}M{low:.1f} {at - 4}v8M{high:.1f} {at - 4}v8" stroke="#111827"/>',
        _text(max(middle, high) + 6, y - 2, value),
    ]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = "#111827",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )
