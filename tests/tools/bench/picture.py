"""The report as three charts: throughput compared with peers, latency over the rate, cost over partitions."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.tools.bench.charts import Axis, Bar, Curve, bar_chart, curve_chart
from tests.tools.bench.table import PEERS

OURS, OTHERS, LEAST = "#1d5fd1", "#8a97a6", "#9a6700"
_NOTES: Final = {
    "service": "Postgres and result events",
    "streams": "its own store, exactly once",
    "quix": "its own store, exactly once",
    "saver": "Postgres, no events",
}
_NAMES: Final = {
    "service": "Waypost",
    "streams": "Kafka Streams",
    "quix": "Quix Streams",
    "saver": "LangGraph saver",
}
_COLORS: Final = {"service": OURS, "bare": LEAST, "streams": "#6b7785", "quix": OTHERS}
_LEAST: Final = "Bare loop: only fetch, insert, and append, without what makes a command count once."
_ABOUT_THE_NAME: Final = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor)\b|@.*")


def pictures(reports: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Draw each chart from the first report that has its figures; their SVG texts, by name."""
    found = {name: having(reports, part) for name, (part, _) in _CHARTS.items()}
    return {name: _CHARTS[name][1](report) for name, report in found.items() if report is not None}


def having(reports: Sequence[Mapping[str, Any]], part: str) -> Mapping[str, Any] | None:
    """Return the first report that has a part."""
    return next((report for report in reports if part in report), None)


def day(report: Mapping[str, Any], part: str) -> str:
    """Return the date on which a part of a report was measured."""
    at: str = report[part].get("measured", report)["at"]
    return at[:10]


def processor(found: Mapping[str, Any]) -> str:
    """Return a processor's name without the additions of its maker."""
    return " ".join(_ABOUT_THE_NAME.sub(" ", found["cpu"]).split())


def _throughput(report: Mapping[str, Any]) -> str:
    rates = report["peers"]["commands_per_second"]
    bars = [
        Bar(_NAMES[name], _NOTES[name], rates[name], OURS if name == "service" else OTHERS) for name in PEERS
    ]
    return bar_chart(
        "Checkpoints saved per second",
        "The same job for each, in turns on one machine. Longer is better.",
        "checkpoints of 1 KB per second",
        bars,
        [
            "Bar: median of the runs. Thin line: from the slowest to the fastest run.",
            _machine(report, "peers"),
        ],
    )


def _latency(report: Mapping[str, Any]) -> str:
    curves = [
        Curve(
            f"{name}, {words}",
            [(float(rate), systems[system][part]["median"]) for rate, systems in report["latency"].items()],
            _COLORS[system],
            dashed=part == "p99",
        )
        for system, name in (("service", "Waypost"), ("bare", "Bare loop"))
        for part, words in (("p50", "median"), ("p99", "slowest 1 %"))
    ]
    peers = report.get("peers", {}).get("p50_ms_at_1000_per_second", {})
    curves += [
        Curve(f"{_NAMES[system]}, median", [(1000.0, peers[system]["median"])], _COLORS[system])
        for system in ("streams", "quix")
        if system in peers
    ]
    return curve_chart(
        "Time from publishing to the result event",
        "How long until subscribers see a checkpoint. Lower is better.",
        Axis("checkpoints published per second"),
        Axis("milliseconds"),
        curves,
        [
            "Each line up is ten times as long. Median: half of the results come faster.",
            _LEAST,
            _machine(report, "latency"),
        ],
    )


def _partitions(report: Mapping[str, Any]) -> str:
    counts = report["partitions"]["counts"]
    curves = [
        Curve(
            f"{'Waypost' if system == 'service' else 'Bare loop'}, {int(rate):,}/s",
            [
                (float(count), figures["latency"][rate][system]["cpu_us_per_command"]["median"])
                for count, figures in counts.items()
            ],
            _COLORS[system],
            dashed=rate == "200",
        )
        for system in ("service", "bare")
        for rate in ("1000", "200")
    ]
    return curve_chart(
        "What more partitions cost",
        "Processor time for each checkpoint. Lower is better.",
        Axis("partitions of the topics, all with one worker"),
        Axis("microseconds of worker, Kafka, and Postgres together", "linear"),
        curves,
        [
            "With fewer checkpoints per second, smaller batches share the work.",
            _LEAST,
            _machine(report, "partitions"),
        ],
    )


def _machine(report: Mapping[str, Any], part: str) -> str:
    machine = report["machine"]
    cores = f"{machine['cpus']} cores of {processor(machine)}"
    return f"All on one machine ({cores}), measured {day(report, part)}."


_CHARTS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]]] = {
    "throughput": ("peers", _throughput),
    "latency": ("latency", _latency),
    "partitions": ("partitions", _partitions),
}
