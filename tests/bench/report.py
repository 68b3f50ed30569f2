"""From measurements to figures: spreads, percentiles, ratios with their targets, and the table. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
TITLES: Final = {"bare": "bare loop", "service": "service"}
MODES: Final = {"waiting": "all commands waiting", "concurrent": "with a publisher at full speed"}
_ROLES: Final = (("loop",), ("postgres_backends", "postgres_background"), ("kafka",), ("load",))
_TOGETHER: Final = ("loop", "postgres_backends", "postgres_background", "kafka")


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Lowest, median and highest."""
    return {
        "min": round(min(values), digits),
        "median": round(median(values), digits),
        "max": round(max(values), digits),
    }


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value that ``part`` of the rising values do not exceed (nearest rank)."""
    rank = -(-len(ordered) * round(part * 1000) // 1000)
    return ordered[max(0, rank - 1)]


def latency_figures(runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Percentiles of each run (rising milliseconds) with their spread, and those of all runs together."""
    together = sorted(value for run in runs for value in run)
    figures: dict[str, Any] = {
        name: spread([percentile(run, part) for run in runs], 2) for name, part in PERCENTILES.items()
    }
    figures["together"] = {
        name: round(percentile(together, part), 2) for name, part in PERCENTILES.items()
    } | {"max": round(together[-1], 2), "samples": len(together)}
    return figures


def paired_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """The median of the ratios of each pair of neighbouring runs, which share the state of the machine."""
    pairs = [one / other for one, other in zip(above, below, strict=True)]
    return {"value": round(median(pairs), 3), "pairs": [round(pair, 3) for pair in pairs]}


def ceiling(runs: Sequence[Mapping[str, Any]], cpus: int) -> float:
    """Commands a second that CPU time alone would allow on this machine, were nobody else on it.

    The loop is one thread, and all together share the cores. On a busy machine this says more than a clock.
    """
    used = [run["cpu_us_per_command"] for run in runs if run["cpu_us_per_command"]]
    if not used:
        return float("nan")
    loop = median([float(one["loop"]) for one in used])
    together = sum(median([float(one[role]) for one in used]) for role in _TOGETHER)
    return 1e6 / max(loop, together / cpus)


def at_least(figure: Mapping[str, Any], target: float, later: float) -> dict[str, Any]:
    """A figure with the least that it must be, now and later."""
    return {
        **figure,
        "target": f">= {target}",
        "target_later": f">= {later}",
        "met": figure["value"] >= target,
    }


def at_most(figure: Mapping[str, Any], target: float | None, later: float) -> dict[str, Any]:
    """A figure with the most that it may be; ``target`` is None where nothing is promised for now."""
    now = {} if target is None else {"target": f"<= {target}", "met": figure["value"] <= target}
    return {**figure, **now, "target_later": f"<= {later}"}


def ratios(throughput: Mapping[str, Any], latency: Mapping[str, Any], cpus: int) -> dict[str, Any]:
    """What the project promises, each with its value, its target and whether it is met."""

    def per_second(mode: str, system: str) -> list[float]:
        return [run["per_second"] for run in throughput[mode][system]["runs"]]

    waiting = throughput["waiting"]
    ceilings = {system: ceiling(waiting[system]["runs"], cpus) for system in TITLES}
    found = {
        "creates_service_over_bare": at_least(
            paired_ratio(per_second("waiting", "service"), per_second("waiting", "bare")), 0.6, 0.8
        ),
        "creates_service_over_bare_with_publisher": paired_ratio(
            per_second("concurrent", "service"), per_second("concurrent", "bare")
        ),
    }
    found["creates_service_over_bare_by_cpu_time"] = {
        "value": round(ceilings["service"] / ceilings["bare"], 3),
        "ceilings_per_second": {system: round(value) for system, value in ceilings.items()},
    }
    for rate, now, later in (("200", None, 4), ("1000", 15, 8)):
        if rate in latency:
            p50 = latency[rate]["service"]["p50"]
            figure = {"value": p50["median"], "unit": "ms", "spread": p50}
            found[f"p50_ms_at_{rate}_per_second"] = at_most(figure, now, later)
            bare = latency[rate]["bare"]["p50"]["median"]
            found[f"p50_service_over_bare_at_{rate}_per_second"] = {"value": round(p50["median"] / bare, 2)}
    return found


def table(report: Mapping[str, Any]) -> str:
    """The report for people, at most 80 columns wide."""
    lines = [_heading(report), "", *_throughput_lines(report), "", *_latency_lines(report), ""]
    return "\n".join([*lines, *_ratio_lines(report)])


def _heading(report: Mapping[str, Any]) -> str:
    machine, plan = report["machine"], report["configuration"]["plan"]
    return (
        f"{plan['name']} run on {machine['cpus']} x {machine['cpu'][:50]}\n"
        f"creates of 1 KB, {plan['sessions']:,} sessions, {plan['partitions']} partitions, "
        f"Kafka {report['versions']['kafka']}, Postgres {report['versions']['postgres']}"
    )


def _throughput_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{'commands a second':<24}{'min':>8}{'median':>8}{'max':>8}   CPU us: loop  pg kafka load",
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


def _numbers(figures: Mapping[str, float]) -> str:
    return "".join(f"{figures[name]:>8,.0f}" for name in ("min", "median", "max"))


def _latency_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [f"{'publish to visible, ms':<24}{'p50 (min - max)':>22}{'p99 (min - max)':>22}{'p99.9':>9}"]
    for rate, systems in report["latency"].items():
        lines.append(f" {int(rate):,} a second")
        for system, figures in systems.items():
            cells = [
                f"{_ms(figures[name]['median'])} ({_ms(figures[name]['min'])} - {_ms(figures[name]['max'])})"
                for name in ("p50", "p99")
            ]
            lines.append(
                f"  {TITLES[system]:<22}{cells[0]:>22}{cells[1]:>22}{_ms(figures['together']['p99.9']):>9}"
            )
    return lines


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _ratio_lines(report: Mapping[str, Any]) -> list[str]:
    lines = [f"{'ratios and promises':<44}{'value':>8}{'target':>10}{'later':>9}"]
    for name, figure in report["ratios"].items():
        mark = {True: "  met", False: "  NOT", None: ""}[figure.get("met")]
        target, later = figure.get("target", ""), figure.get("target_later", "")
        lines.append(f" {name.replace('_', ' '):<43}{figure['value']:>8}{target:>10}{later:>9}{mark}")
    busy = report["elsewhere_cores"]
    lines.append(
        f"Others kept {busy['median']:.1f} of {report['machine']['cpus']} cores busy meanwhile "
        f"({busy['min']:.1f} to {busy['max']:.1f})."
    )
    return lines
