"""From measurements to figures: spreads, percentiles, ratios with their targets. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final, Literal

PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
TITLES: Final = {"bare": "bare loop", "service": "service", "cores": "service, all cores"}
PAIR: Final[tuple[Literal["bare", "service"], ...]] = (
    "bare",
    "service",
)  # what latency and CPU time are taken of
MODES: Final = {"waiting": "all commands waiting", "concurrent": "with a publisher at full speed"}
_TOGETHER: Final = ("loop", "postgres_backends", "postgres_background", "kafka")
# The allowed latency at a rate, in milliseconds.
_LATENCIES: Final = {"200": {"p50": 4, "p99": 15}, "1000": {"p50": 8, "p99": 30}}


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


def paired_ratio(above: Sequence[float], below: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return the median ratio over pairs of neighboring runs, which share the state of the machine."""
    pairs = [one / other for one, other in zip(above, below, strict=True)]
    return {
        "value": round(median(pairs), digits),
        "spread": spread(pairs, digits),
        "pairs": [round(pair, digits) for pair in pairs],
    }


def plain_figure(values: Sequence[float], unit: str, digits: int = 2) -> dict[str, Any]:
    """Return the median of a value that is not a ratio, with its spread."""
    return {"value": round(median(values), digits), "unit": unit, "spread": spread(values, digits)}


def ceiling(runs: Sequence[Mapping[str, Any]], cpus: int) -> float:
    """Return the commands per second that CPU time alone would allow on an otherwise idle machine.

    The loop is one thread, and all together share the cores. On a busy machine this says more than a clock.
    """
    used = [run["cpu_us_per_command"] for run in runs if run["cpu_us_per_command"]]
    if not used:
        return float("nan")
    loop = median([float(one["loop"]) for one in used])
    together = sum(median([float(one[role]) for one in used]) for role in _TOGETHER)
    return 1e6 / max(loop, together / cpus)


def at_least(figure: Mapping[str, Any], target: float) -> dict[str, Any]:
    """Return a figure with its minimum."""
    return {**figure, "target": f">= {target:g}", "met": figure["value"] >= target}


def at_most(figure: Mapping[str, Any], target: float) -> dict[str, Any]:
    """A figure with the most that it may be."""
    return {**figure, "target": f"<= {target:g}", "met": figure["value"] <= target}


def ratios(throughput: Mapping[str, Any], latency: Mapping[str, Any], cpus: int) -> dict[str, Any]:
    """Return the project's promises compared with the bare loop, each with its value, its target and whether it is
    met.
    """

    def per_second(mode: str, system: str) -> list[float]:
        return [run["per_second"] for run in throughput[mode][system]["runs"]]

    waiting = throughput["waiting"]
    ceilings = {system: ceiling(waiting[system]["runs"], cpus) for system in PAIR}
    found = {
        "creates_service_over_bare": at_least(
            paired_ratio(per_second("waiting", "service"), per_second("waiting", "bare")), 0.8
        ),
        "creates_service_over_bare_with_publisher": paired_ratio(
            per_second("concurrent", "service"), per_second("concurrent", "bare")
        ),
        "creates_service_on_all_cores_over_bare": at_least(
            paired_ratio(per_second("waiting", "cores"), per_second("waiting", "bare")), 0.8
        ),
        "creates_service_on_all_cores_over_bare_with_publisher": paired_ratio(
            per_second("concurrent", "cores"), per_second("concurrent", "bare")
        ),
    }
    by_cpu_time = {
        "value": round(ceilings["service"] / ceilings["bare"], 3),
        "ceilings_per_second": {system: round(value) for system, value in ceilings.items()},
    }
    found["creates_service_over_bare_by_cpu_time"] = at_least(by_cpu_time, 0.9)
    for rate, targets in _LATENCIES.items():
        if rate not in latency:
            continue
        for name, target in targets.items():
            taken = latency[rate]["service"][name]
            figure = {"value": taken["median"], "unit": "ms", "spread": taken}
            found[f"{name}_ms_at_{rate}_per_second"] = at_most(figure, target)
        medians = {system: latency[rate][system]["p50"]["median"] for system in PAIR}
        found[f"p50_service_over_bare_at_{rate}_per_second"] = {
            "value": round(medians["service"] / medians["bare"], 2)
        }
    return found
