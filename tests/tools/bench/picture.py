"""The report as a picture: throughput bars, the peers' beside them, what was promised, latency over rate. SVG."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from math import ceil, log10
from typing import Any, Final, NamedTuple

from tests.tools.bench.report import MODES, PAIR, TITLES
from tests.tools.bench.table import GRAPHS, PEERS

_WIDTH: Final = 860
_LEFT: Final = 300
_RIGHT: Final = _WIDTH - 90
_COLOURS: Final = {
    "bare": "#8a94a6",
    "service": "#2563eb",
    "cores": "#1e40af",
    "copy": "#c7ccd6",
    "streams": "#c2410c",
    "quix": "#7c3aed",
    "saver": "#0f766e",
    "memory": "#8a94a6",
    "accepted": "#60a5fa",
    "logged": "#2563eb",
    "applied": "#1e40af",
}
_BAR: Final = 24
_CURVES_HEIGHT: Final = 260
_LOWEST_MS: Final = 1.0
_LINES: Final = {"p50": "", "p99": ' stroke-dasharray="6 4"'}


class _Bar(NamedTuple):
    label: str
    spread: Mapping[str, float]
    colour: str


def draw(report: Mapping[str, Any]) -> str:
    """The SVG's text; parts that the report lacks are left out."""
    body: list[str] = []
    y = _bars(body, "Commands a second, creates of 1 KB", _throughput(report), 30)
    if "peers" in report:
        y = _bars(body, "The same job, side by side in one run: commands a second", _peers(report), y + 40)
    if "graphs" in report:
        y = _bars(body, "50 LangGraph graphs of five nodes at once: runs per second", _graphs(report), y + 40)
    y = _promises(body, report.get("ratios", {}), y + 40)
    if "latency" in report:
        y = _curves(body, report, y + 40)
    if "partitions" in report:
        y = _over_partitions(body, report["partitions"]["counts"], y + 40)
    machine = report.get("machine", {})
    note = f"{machine.get('cpus', '?')} x {machine.get('cpu', '?')}"
    if (plan := report.get("configuration", {}).get("plan")) is not None:
        note += f"; {plan['sessions']:,} sessions, {plan['partitions']} partitions"
    note += "; everything on one machine; medians, lines run from lowest to highest"
    body.append(_text(20, y + 26, note, size=11, colour="#5b6472"))
    height = y + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _throughput(report: Mapping[str, Any]) -> Iterable[_Bar]:
    for mode, systems in report.get("throughput", {}).items():
        for system, figures in systems.items():
            yield _Bar(f"{TITLES[system]}, {MODES[mode]}", figures["spread"], _COLOURS[system])
    for batch, figures in report.get("copy", {}).items():
        yield _Bar(f"COPY alone, batches of {batch}", figures["spread"], _COLOURS["copy"])
    replay = report.get("shapes", {}).get("replay")
    if replay is not None:
        yield _Bar("service, before the replay", replay["live"], _COLOURS["service"])
        yield _Bar("replay of the same commands", replay["replay"], _COLOURS["service"])


def _peers(report: Mapping[str, Any]) -> Iterable[_Bar]:
    rates = report["peers"]["commands_per_second"]
    return (_Bar(title, rates[name], _COLOURS[name]) for name, title in PEERS.items())


def _graphs(report: Mapping[str, Any]) -> Iterable[_Bar]:
    rates = report["graphs"]["at_once_per_second"]["1"]
    return (_Bar(title, rates[name], _COLOURS[name]) for name, title in GRAPHS.items())


def _bars(body: list[str], title: str, bars: Iterable[_Bar], y: int) -> int:
    wanted = list(bars)
    if not wanted:
        return y
    most = max(bar.spread["max"] for bar in wanted) * 1.08
    body.append(_text(20, y, title, size=15, weight="bold"))
    for bar in wanted:
        y += _BAR + 6
        _bar(body, y, bar, lambda value: value / most, f"{bar.spread['median']:,.0f}")
    return y


def _promises(body: list[str], ratios: Mapping[str, Any], y: int) -> int:
    """How far each figure is on the right side of its target: 1 is the target, more is better."""
    promised = {name: figure for name, figure in ratios.items() if "target" in figure}
    if not promised:
        return y
    body.append(_text(20, y, "What was promised: 1 is the target, more is better", size=15, weight="bold"))
    across = _RIGHT - _LEFT
    for name, figure in promised.items():
        y += _BAR
        target = float(figure["target"].split()[1])
        value = figure["value"]
        reached = value / target if figure["target"].startswith(">=") else target / max(value, 1e-9)
        shown = f"{value:g} ({figure['target']})"
        colour = _COLOURS["service"] if figure["met"] else "#dc2626"
        long = across / 2 * min(reached, 2.0)
        body += [
            _text(
                _LEFT - 8, y - 2, name.replace("_", " ").replace("service over ", "/ "), anchor="end", size=11
            ),
            f'<rect x="{_LEFT}" y="{y - 15}" width="{long:.1f}" height="16" fill="{colour}"/>',
            _text(_LEFT + long + 6, y - 2, shown, size=11),
        ]
    body.append(f'<path d="M{_LEFT + across / 2:.1f} {y + 4}v-{_BAR * len(promised)}" stroke="#111827"/>')
    return y


def _curves(body: list[str], report: Mapping[str, Any], y: int) -> int:
    """Percentiles over the rate; peers where they were measured."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {
        (system, name): [
            (float(rate), systems[system][name]["median"]) for rate, systems in report["latency"].items()
        ]
        for system in PAIR
        for name in _LINES
    }
    peers = report.get("peers", {})
    for system in ("streams", "quix"):
        for name in _LINES:
            found = peers.get(f"{name}_ms_at_1000_per_second", {}).get(system)
            if found is not None:
                curves[system, name] = [(1000.0, found["median"])]
    title = "Publish to visible result, milliseconds over commands a second (both logarithmic)"
    return _log_chart(body, y, title, curves, "{:,.0f}/s")


def _over_partitions(body: list[str], counts: Mapping[str, Any], y: int) -> int:
    """Percentiles at 1,000 a second over the number of partitions."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {
        (system, name): [
            (float(count), figures["latency"]["1000"][system][name]["median"])
            for count, figures in counts.items()
        ]
        for system in PAIR
        for name in _LINES
    }
    title = "Publish to visible result at 1,000 a second, milliseconds over partitions (both logarithmic)"
    return _log_chart(body, y, title, curves, "{:.0f}")


def _log_chart(
    body: list[str],
    y: int,
    title: str,
    curves: Mapping[tuple[str, str], list[tuple[float, float]]],
    mark: str,
) -> int:
    """Curves by system and percentile, both axes logarithmic; ``mark`` formats what stands below the places."""
    rates = sorted({rate for points in curves.values() for rate, _ in points})
    top = 10 ** ceil(log10(max(value for points in curves.values() for _, value in points) * 1.05))
    first, last = log10(rates[0]), log10(max(rates[-1], rates[0] * 2))
    bottom = y + 20 + _CURVES_HEIGHT

    def across(rate: float) -> float:
        return 80 + (_RIGHT - 230) * (log10(rate) - first) / (last - first)

    def up(value: float) -> float:
        part = log10(max(value, _LOWEST_MS) / _LOWEST_MS) / log10(top / _LOWEST_MS)
        return bottom - _CURVES_HEIGHT * part

    body.append(_text(20, y, title, size=15, weight="bold"))
    tick = _LOWEST_MS
    while tick <= top:
        body.append(f'<path d="M80 {up(tick):.1f}H{across(rates[-1]):.1f}" stroke="#e5e7eb"/>')
        body.append(_text(72, up(tick) + 4, f"{tick:g}", anchor="end"))
        tick *= 10
    for rate in rates:
        body.append(_text(across(rate), bottom + 18, mark.format(rate), anchor="middle"))
    for (system, name), points in curves.items():
        places = [(across(rate), up(value)) for rate, value in points]
        line = "L".join(f"{x:.1f} {at:.1f}" for x, at in places)
        colour = _COLOURS[system]
        body.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"{_LINES[name]}/>')
        for (x, at), (_, value) in zip(places, points, strict=True):
            fill = colour if name == "p50" else "#ffffff"
            body.append(f'<circle cx="{x:.1f}" cy="{at:.1f}" r="3.5" fill="{fill}" stroke="{colour}"/>')
            body.append(_text(x + 6, at - 5, f"{value:.1f}", size=10, colour=colour))
    names = {**TITLES, **PEERS, "service": "service"}
    for place, system in enumerate(dict.fromkeys(system for system, _ in curves)):
        body.append(_text(_RIGHT - 100, y + 40 + 18 * place, names[system], colour=_COLOURS[system]))
    body.append(_text(_RIGHT - 100, bottom - 20, "full: p50, dashed: p99", size=11, colour="#5b6472"))
    return bottom + 24


def _bar(body: list[str], y: int, bar: _Bar, place: Callable[[float], float], value: str) -> None:
    across = _RIGHT - _LEFT
    low, middle, high = (_LEFT + across * place(bar.spread[name]) for name in ("min", "median", "max"))
    at = y - 6
    body += [
        _text(_LEFT - 8, y - 2, bar.label, anchor="end"),
        f'<rect x="{_LEFT}" y="{y - 15}" width="{middle - _LEFT:.1f}" height="18" fill="{bar.colour}"/>',
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
