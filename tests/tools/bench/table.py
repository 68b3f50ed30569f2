"""The report as text for a terminal, at most 100 columns wide. Pure; shows whatever parts a report has."""

from collections.abc import Mapping
from statistics import median
from typing import Any, Final, Literal

from tests.tools.bench.report import MODES, PAIR, TITLES

PEERS: Final = {
    "service": "Waypost",
    "streams": "Kafka Streams, exactly once",
    "quix": "Quix Streams, exactly once",
    "saver": "LangGraph AsyncPostgresSaver",
}
# Checkpointers of LangGraph; those of Waypost are named after what a write waits for.
MODES_OF_SAVER: Final[tuple[Literal["accepted", "logged", "applied"], ...]] = (
    "accepted",
    "logged",
    "applied",
)
GRAPHS: Final = {
    "memory": "InMemorySaver",
    "saver": "AsyncPostgresSaver",
    "accepted": "WaypostSaver, accepted",
    "logged": "WaypostSaver, logged",
    "applied": "WaypostSaver, applied",
}
DURABILITIES: Final = ("sync", "async", "exit")  # of LangGraph
HISTORIES: Final = (1, 10, 200)  # messages
_ROLES: Final = (("loop",), ("postgres_backends", "postgres_background"), ("kafka",), ("load",))


def table(report: Mapping[str, Any]) -> str:
    """All parts that are there, and what was promised."""
    parts = [_heading(report)]
    if "throughput" in report:
        parts.append(_throughput_lines(report))
    if "latency" in report:
        parts.append(_latency_lines(report))
    if "partitions" in report:
        parts.append(_partition_lines(report["partitions"]["counts"]))
    if "shapes" in report:
        parts.append(_shape_lines(report["shapes"]))
    if "peers" in report:
        parts.append(_peer_lines(report["peers"]))
    if "graphs" in report:
        parts.append(_graph_lines(report["graphs"]))
    parts.append(_ratio_lines(report))
    return "\n\n".join("\n".join(part) for part in parts)


def _heading(report: Mapping[str, Any]) -> list[str]:
    machine, versions = report["machine"], report["versions"]
    lines = [
        f"{machine['cpus']} x {machine['cpu'][:50]}; Kafka {versions['kafka']}, Postgres {versions['postgres']}"
    ]
    plan = report.get("configuration", {}).get("plan")
    if plan is not None:
        lines.append(
            f"{plan['name']} run, creates of 1 KB over {plan['sessions']:,} sessions, {plan['partitions']} "
            "partitions"
        )
    return lines


def _throughput_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'commands a second':<24}{'min':>10}{'median':>10}{'max':>10}   CPU us: loop  pg kafka load",
    ]
    for mode, title in MODES.items():
        lines.append(f" {title}")
        for system, figures in report["throughput"][mode].items():
            cpu = [run["cpu_us_per_command"] for run in figures["runs"] if run["cpu_us_per_command"]]
            used = [
                median([sum(run[role] for role in roles) for run in cpu]) if cpu else 0 for roles in _ROLES
            ]
            lines.append(
                f"  {TITLES[system]:<22}{_numbers(figures['spread'])}"
                f"{used[0]:>15.0f}{used[1]:>4.0f}{used[2]:>6.0f}{used[3]:>5.0f}"
            )
    lines.append(" COPY alone, one connection (rows)")
    for batch, figures in report["copy"].items():
        lines.append(f"  {'batches of ' + batch:<22}{_numbers(figures['spread'])}")
    return lines


def _numbers(figures: Mapping[str, float], digits: int = 0) -> str:
    return "".join(f"{figures[name]:>10,.{digits}f}" for name in ("min", "median", "max"))


def _latency_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [f"{'publish to visible, ms':<24}{'p50 (min - max)':>24}{'p99 (min - max)':>24}{'p99.9':>10}"]
    for rate, systems in report["latency"].items():
        lines.append(f" {int(rate):,} a second")
        for system, figures in systems.items():
            cells = [_cell(figures[name]) for name in ("p50", "p99")]
            lines.append(
                f"  {TITLES[system]:<22}{cells[0]:>24}{cells[1]:>24}{_ms(figures['together']['p99.9']):>10}"
            )
    return lines


def _partition_lines(counts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'over partitions':<24}{'p50 200/s':>11}{'1,000/s':>9}{'CPU us 200/s':>14}{'1,000/s':>9}"
        f"{'backlog':>11}{'sockets':>9}{'idle %':>8}"
    ]
    for count, figures in counts.items():
        for system in PAIR:
            steady = [figures["latency"][rate][system] for rate in ("200", "1000")]
            p50s = [_ms(one["p50"]["median"]) for one in steady]
            cpu = [one["cpu_us_per_command"]["median"] for one in steady]
            idle = figures["idle"]
            rest = (
                f"{idle['kafka_connections']['median']:>9.0f}{idle['worker_percent']['median']:>8.1f}"
                if system == "service"
                else ""
            )
            lines.append(
                f" {count:>3} {TITLES[system]:<19}{p50s[0]:>11}{p50s[1]:>9}{cpu[0]:>14,.0f}{cpu[1]:>9,.0f}"
                f"{figures['backlog_per_second'][system]['median']:>11,.0f}{rest}"
            )
    return lines


def _cell(figures: Mapping[str, float]) -> str:
    return f"{_ms(figures['median'])} ({_ms(figures['min'])} - {_ms(figures['max'])})"


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _shape_lines(shapes: Mapping[str, Any]) -> list[str]:
    lines = [f"{'other shapes':<44}{'min':>10}{'median':>10}{'max':>10}"]
    for name, found in shapes.items():
        if not isinstance(found, Mapping) or name in ("measured", "configuration"):
            continue
        if "median" in found:
            lines.append(f" {name.replace('_', ' '):<43}{_numbers(found, 2)}")
            continue
        for what, figures in found.items():
            title = f" {name.replace('_', ' ')}, {what.replace('_', ' ')}"
            if isinstance(figures, Mapping):
                lines.append(f"{title:<44}{_numbers(figures)}")
            else:
                lines.append(f"{title:<54}{figures:>10,}")
    return lines


def _peer_lines(peers: Mapping[str, Any]) -> list[str]:
    lines = [f"{'the same job, in one run':<32}{'commands a second':>28}{'p50 at 1,000/s':>20}{'p99':>20}"]
    for name, title in PEERS.items():
        rate = peers["commands_per_second"][name]
        rates = f"{rate['median']:,.0f} ({rate['min']:,.0f} - {rate['max']:,.0f})"
        p50, p99 = (
            _cell(peers[f"{part}_ms_at_1000_per_second"][name])
            if name in peers[f"{part}_ms_at_1000_per_second"]
            else ""
            for part in ("p50", "p99")
        )
        lines.append(f" {title:<31}{rates:>28}{p50:>20}{p99:>20}")
    return lines


def _graph_lines(graphs: Mapping[str, Any]) -> list[str]:
    lines = [f"{'LangGraph, five nodes, ms':<34}" + "".join(f"{f'{count} msg.':>12}" for count in HISTORIES)]
    for durability, histories in graphs["one"].items():
        lines.append(f" durability={durability}")
        for name, title in GRAPHS.items():
            cells = [_ms(histories[str(count)][name]["ms"]["median"]) for count in HISTORIES]
            lines.append(f"  {title:<32}" + "".join(f"{cell:>12}" for cell in cells))
    lines.append(" 50 in parallel, runs per second")
    for name, title in GRAPHS.items():
        rates = [graphs["at_once_per_second"][str(count)][name]["median"] for count in HISTORIES]
        lines.append(f"  {title:<32}" + "".join(f"{rate:>12,.1f}" for rate in rates))
    return lines


def _ratio_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [f"{'ratios and promises':<56}{'value':>9}{'min - max':>19}{'target':>10}"]
    for name, figure in report["ratios"].items():
        mark = {True: "  met", False: "  NOT", None: ""}[figure.get("met")]
        spread = figure.get("spread")
        between = f"{spread['min']:g} - {spread['max']:g}" if spread else ""
        title, target = name.replace("_", " "), figure.get("target", "")
        lines.append(f" {title:<55}{figure['value']:>9g}{between:>19}{target:>10}{mark}".rstrip())
    if "elsewhere_cores" in report:
        busy = report["elsewhere_cores"]
        lines.append(
            f"Others kept {busy['median']:.1f} of {report['machine']['cpus']} cores busy meanwhile "
            f"({busy['min']:.1f} to {busy['max']:.1f})."
        )
    return lines
