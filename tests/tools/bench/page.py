"""``python -m tests.tools.bench.page``: write docs/performance.md and its charts from ``build/bench.json``.

Reports are kept in docs/measured, one per type of processor. All of them are on the page, the newest with all its
figures. ``--again`` restores the report of this processor to ``build``, so that one part can be measured again.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.tools.bench.machine import machine
from tests.tools.bench.merging import REPORT
from tests.tools.bench.picture import day, having, pictures, processor
from tests.tools.bench.report import PAIR, TITLES
from tests.tools.bench.table import GRAPHS, HISTORIES, PEERS

_DOCS: Final = Path(__file__).parents[3] / "docs"
PAGE: Final = "performance.md"
KEPT: Final = "measured"
PICTURES: Final = {
    "throughput": "Checkpoints saved per second: Waypost and its peers",
    "latency": "Time from publishing to the result event, at each rate",
    "partitions": "Processor time for each checkpoint, by the number of partitions",
}
_LATENCY: Final = re.compile(r"(p\d+)_ms_at_(\d+)_per_second")
_SHAPES: Final = {
    "at_cap": "1 KB, every session at its cap: each create removes one",
    "data_10_kb": "10 KB of data",
    "data_100_kb": "100 KB of data",
}
_MEANINGS: Final = {
    "creates_service_over_bare": "1 KB creates with one process, compared with the bare loop",
    "creates_service_over_bare_with_publisher": "same, with a publisher at full speed on the same cores",
    "creates_service_on_all_cores_over_bare": "1 KB creates with one process per core, compared with the bare loop",
    "creates_service_on_all_cores_over_bare_with_publisher": "same, with a publisher",
    "creates_service_over_bare_by_cpu_time": "1 KB creates, one process, by CPU time alone",
    "creates_service_over_saver": "creates, compared with LangGraph's AsyncPostgresSaver",
    "creates_service_over_streams_or_quix": "creates, compared with the better of Kafka Streams and Quix Streams",
    "at_cap_service_over_bare": "every session at its cap, compared with the bare loop",
    "data_10_kb_service_over_bare": "10 KB of data, compared with the bare loop, MB/s",
    "data_100_kb_service_over_bare": "100 KB of data, compared with the bare loop, MB/s",
    "creates_once_loaded_after_1_gb_over_short_history": (
        "creates of a new worker with 1 GB of history in Postgres, compared with 20 MB, once it has loaded all sessions"
    ),
    "creates_with_loading_after_1_gb_over_short_history": "same, while it loads the sessions",
    "replay_over_live": "replay into an empty database, compared with the live worker",
    "p50_ms_at_200_per_second": "publish to visible result at 200 per second, p50",
    "p99_ms_at_200_per_second": "same, p99",
    "p50_ms_at_1000_per_second": "publish to visible result at 1,000 per second, p50",
    "p99_ms_at_1000_per_second": "same, p99",
    "p50_service_over_bare_at_200_per_second": "p50 at 200 per second, compared with the bare loop",
    "p50_service_over_bare_at_1000_per_second": "p50 at 1,000 per second, compared with the bare loop",
    "p50_service_over_streams_or_quix_at_1000_per_second": (
        "p50 at 1,000 per second, compared with the better of Kafka Streams and Quix Streams"
    ),
    "p50_at_1000_per_second_with_24_partitions_over_3": "p50 at 1,000 per second with 24 partitions, compared with 3",
    "p50_at_1000_per_second_with_96_partitions_over_3": "same, with 96 partitions",
    "p50_service_over_bare_at_1000_per_second_with_24_partitions": (
        "p50 at 1,000 per second with 24 partitions, compared with the bare loop"
    ),
    "cpu_at_200_per_second_with_24_partitions_over_3": (
        "CPU of worker, Kafka, and Postgres per create at 200 per second with 24 partitions, compared with 3"
    ),
    "backlog_with_96_partitions_over_3": "creates from a backlog with 96 partitions, compared with 3",
    "idle_kafka_connections_with_96_partitions": "connections of a worker with 96 partitions to one broker",
    "idle_worker_percent_with_96_partitions": "CPU of a worker with 96 partitions and no commands",
    "idle_acquired_seconds_with_96_partitions": "from the start of a worker's process until it owns 96 partitions",
    "graph_ms_logged_over_saver": (
        "a LangGraph graph of five nodes, logged, compared with LangGraph's AsyncPostgresSaver"
    ),
    "graph_ms_accepted_over_memory": "same, accepted, compared with LangGraph's InMemorySaver",
    "graphs_at_once_logged_over_saver": (
        "50 such graphs in parallel, logged, compared with LangGraph's AsyncPostgresSaver"
    ),
    "graphs_at_once_logged_over_memory": "same, compared with LangGraph's InMemorySaver",
    "takeover_sigterm_seconds": "results pause when one of two workers gets SIGTERM",
    "takeover_sigkill_seconds": "results pause when one of two workers gets SIGKILL (session timeout + 1 s)",
    "million_sessions_worker_mb": "memory of a worker that served a million sessions",
}
_INTRODUCTION: Final = """# Performance

<!-- Made from build/bench.json by `make bench-page`; change tests/tools/bench/page.py. -->

This page compares Waypost with the least work that is possible and with the alternatives. The least work is a **bare
loop**: it fetches, parses, stores a batch with `COPY` and one row's update in a transaction, and appends the results.
It has no validation, no sessions, no retention, and nothing that makes a command count once. The alternatives are
LangGraph's Postgres saver, and Kafka Streams and Quix Streams with exactly-once processing. All of them take turns in
one run, on one machine that also runs broker, database and load. **Ratios** are meaningful; absolute numbers depend
on the machine. To repeat the measurements:

```bash
make bench        # ten minutes: the service and the bare loop, with 3, 24, and 96 partitions
make bench-full   # two hours: more repeats, other load shapes, the peers; build/bench.json and charts
make bench-page   # this page from the report
```
"""
_METHOD: Final = """## How it is measured

- Throughput is computed from the broker's timestamps of the results, between the first 10 and the last 5 percent of
  them. Commands either wait in the topic or are published during the measurement. Startup time is never included.
- A worker is one thread, as the bare loop is. "All cores" is `waypost worker --processes auto`: one worker per core,
  and they share the partitions.
- Latency is measured in an open loop: each command carries its intended send time, and its latency counts from then,
  even if it was sent late. The subscriber is a default Kafka consumer in a separate process. For a transactional
  system, it reads committed records, because there are no others to see. Before measurement, the same traffic runs
  until the broker's JIT compiler has compiled the paths of small requests, as in any broker that has run for some
  minutes. This is also done for each of the peers{exception}.
- Before each measurement, Postgres and the kernel flush the writes of earlier ones, and latencies are measured before
  large runs. Otherwise commits would wait for those writes.
- Peers are configured for exactly-once as their documentation says. The two with transactions keep sessions in a
  local store and do not write to Postgres. The saver has no Kafka and no results, and an agent waits for the put
  itself. Of several pool sizes, threads and processes, the best is used, for Waypost as well.
- Replay compares each result that it computes with the topic. Its speed is compared with that of the worker that
  processed the same commands before it.
- Figures of one machine do not predict those of another. If broker, database, publisher and subscriber alone keep two
  cores busy, a command waits in any service: compare the bare loop's latencies with Waypost's. For the limits of
  larger deployments, see [scaling](scaling.md).
"""


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the page's text, newest report first. Figures that a report lacks are omitted."""
    newest = reports[0]
    return "\n".join(
        (
            _INTRODUCTION,
            *_pictures(reports),
            *_promises(reports),
            *_where(newest),
            "",
            *_throughput(newest),
            *_peers(newest),
            *_graphs(reports),
            *_shapes(newest),
            *_latency(newest),
            *_partitions(reports),
            _METHOD.format(exception=_not_warmed_up(reports)),
        )
    )


def picture_file(name: str) -> str:
    """Return the file in docs/ of one of the pictures."""
    return f"performance-{name}.svg"


def _pictures(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for name in pictures(reports):
        yield f"![{PICTURES[name]}]({picture_file(name)})"
        yield ""


def _where(report: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = report["machine"], report["versions"]
    yield (
        f"Everything below, unless a section names another machine: {machine['cpus']} x {machine['cpu']}, "
        f"{machine['memory_gb']:g} GB, {machine['system']}; "
        f"Python {versions['python']}, Kafka {versions['kafka']}, Postgres {versions['postgres']} (fsync on), Waypost "
        f"{versions['waypost']}; measured {report['at'][:10]}."
    )
    if "elsewhere_cores" in report:
        yield f"Other processes kept {report['elsewhere_cores']['median']:.1f} cores busy."


def _promises(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    where = " | ".join(f"{processor(one['machine'])}, {one['at'][:10]}" for one in reports)
    yield from (
        "## Ratios and targets",
        "",
        "The median of the repeats, with the lowest and the highest.",
        "",
        f"| figure | target | {where} |",
        "|---|---|" + "---|" * len(reports),
    )
    for name, meaning in _MEANINGS.items():
        figures = [report["ratios"].get(name) for report in reports]
        if known := [figure for figure in figures if figure is not None]:
            cells = " | ".join(_measured(report, name) for report in reports)
            yield f"| {meaning} | {known[0].get('target', '')} | {cells} |"
    yield ""


def _measured(report: Mapping[str, Any], name: str) -> str:
    figure = report["ratios"].get(name)
    if figure is None:
        return ""
    unit = f" {figure['unit']}" if "unit" in figure else ""
    spread = figure.get("spread")
    between = f" ({spread['min']:g} - {spread['max']:g})" if spread else ""
    met = {True: ", met", False: ", **not met**", None: ""}[figure.get("met")]
    return f"{figure['value']:g}{unit}{between}{met}{_nor_by_the_bare_loop(report, name)}"


def _nor_by_the_bare_loop(report: Mapping[str, Any], name: str) -> str:
    """Return the bare loop's latency if that misses a target that the service misses as well."""
    figure, matched = report["ratios"][name], _LATENCY.fullmatch(name)
    if matched is None or figure.get("met") is not False:
        return ""
    percentile, rate = matched.groups()
    bare = report.get("latency", {}).get(rate, {}).get("bare")
    if bare is None or bare[percentile]["median"] <= float(figure["target"].removeprefix("<= ")):
        return ""
    return f", nor by the bare loop ({bare[percentile]['median']:g})"


def _not_warmed_up(reports: Sequence[Mapping[str, Any]]) -> str:
    cold = [one for one in reports if not one.get("peers", {"warmed_up": True}).get("warmed_up", False)]
    return f" (not yet on the {', '.join(processor(one['machine']) for one in cold)})" if cold else ""


def _throughput(report: Mapping[str, Any]) -> Iterator[str]:
    if "throughput" not in report:
        return
    yield from (
        "## Compared with the bare loop",
        "",
        "1 KB creates per second, 2,000 sessions, 3 partitions; CPU in microseconds per command.",
        "",
        "| | per second | worker or loop | Postgres | Kafka |",
        "|---|---|---|---|---|",
    )
    for system, figures in report["throughput"]["waiting"].items():
        runs = [run for run in figures["runs"] if run["cpu_us_per_command"]]
        if not runs:
            continue
        cpu = runs[len(runs) // 2]["cpu_us_per_command"]
        postgres = cpu["postgres_backends"] + cpu["postgres_background"]
        yield (
            f"| {TITLES[system]} | {_rates(figures['spread'])} | {cpu['loop']:.0f} | {postgres:.0f} | "
            f"{cpu['kafka']:.0f} |"
        )
    for batch, figures in report["copy"].items():
        yield f"| COPY alone, batches of {batch} | {_rates(figures['spread'])} | | | |"
    yield ""


def _peers(report: Mapping[str, Any]) -> Iterator[str]:
    peers = report.get("peers")
    if peers is None:
        return
    yield from (
        "## Compared with the alternatives",
        "",
        "| | creates per second | p50 at 1,000 per second | p99 | database | results as events |",
        "|---|---|---|---|---|---|",
    )
    has = {
        "service": "Postgres | yes",
        "streams": "none | after the transaction",
        "quix": "none | after the transaction",
        "saver": "Postgres | no",
    }
    for name, title in PEERS.items():
        cells = [_milliseconds(peers[f"{part}_ms_at_1000_per_second"].get(name)) for part in ("p50", "p99")]
        rates = _rates(peers["commands_per_second"][name])
        yield f"| {title} | {rates} | {cells[0]} | {cells[1]} | {has[name]} |"
    yield ""


def _measured_on(report: Mapping[str, Any], part: str) -> str:
    return f"Measured on the {processor(report['machine'])}, {day(report, part)}."


def _graphs(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    report = having(reports, "graphs")
    if report is None:
        return
    graphs = report["graphs"]
    yield from (
        "## A LangGraph graph with each checkpointer",
        "",
        "Five nodes in a row each add a message of 200 characters to a history that starts with 1, 10 or 200 of "
        "them. All checkpointers take turns in one process. A write of WaypostSaver returns when the publisher has "
        "it (accepted), when Kafka has it (logged, the default), or when a worker has applied it (applied). "
        "LangGraph's durability says when a graph waits for its checkpointer. Milliseconds per run, median "
        f"(lowest - highest). {_measured_on(report, 'graphs')}",
        "",
        "| durability | checkpointer | " + " | ".join(_messages(count) for count in HISTORIES) + " |",
        "|---|---|" + "---|" * len(HISTORIES),
    )
    for durability, histories in graphs["one"].items():
        for name, title in GRAPHS.items():
            cells = (_milliseconds(histories[str(count)][name]["ms"]) for count in HISTORIES)
            yield f"| {durability} | {title} | {' | '.join(cells)} |"
    yield from (
        "",
        "50 graphs in parallel, durability async, runs per second:",
        "",
        "| checkpointer | " + " | ".join(_messages(count) for count in HISTORIES) + " |",
        "|---|" + "---|" * len(HISTORIES),
    )
    for name, title in GRAPHS.items():
        rates = (_rates(graphs["at_once_per_second"][str(count)][name]) for count in HISTORIES)
        yield f"| {title} | {' | '.join(rates)} |"
    yield ""


def _messages(count: int) -> str:
    return f"{count} message{'s' if count > 1 else ''}"


def _shapes(report: Mapping[str, Any]) -> Iterator[str]:
    shapes = report.get("shapes", {})
    rows = [
        f"| {title}, {TITLES[system]} | {_rates(figures)} |"
        for name, title in _SHAPES.items()
        for system, figures in shapes.get(name, {}).items()
    ]
    for name, title in (("short", "20 MB"), ("1_gb", "1 GB")):
        if "history" in shapes:
            rows.append(
                f"| 1 KB creates with {title} of history, service | {_rates(shapes['history'][name])} |"
            )
    if "replay" in shapes:
        rows.append(f"| a worker, live, before the replay | {_rates(shapes['replay']['live'])} |")
        rows.append(f"| replay of the same commands, all compared | {_rates(shapes['replay']['replay'])} |")
    if rows:
        yield from ("## Other load shapes", "", "| | commands per second |", "|---|---|", *rows, "")


def _latency(report: Mapping[str, Any]) -> Iterator[str]:
    if "latency" not in report:
        return
    yield from (
        "## Publish to visible result",
        "",
        "Milliseconds, median of the repeats (lowest - highest).",
        "",
        "| commands per second | | p50 | p99 | p99.9 |",
        "|---|---|---|---|---|",
    )
    for rate, systems in report["latency"].items():
        for system, figures in systems.items():
            cells = " | ".join(_milliseconds(figures[name]) for name in ("p50", "p99", "p99.9"))
            yield f"| {int(rate):,} | {TITLES[system]} | {cells} |"
    yield ""


def _partitions(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    report = having(reports, "partitions")
    if report is None:
        return
    yield from (
        "## What partitions cost",
        "",
        "One worker, or the bare loop, serves all partitions of one broker. CPU is that of worker or loop, Kafka, and "
        "Postgres together, in microseconds per create. The last three columns are for a worker without commands: "
        "connections to the broker, share of a core, and seconds from the start of its process until it owns all "
        f"partitions. {_measured_on(report, 'partitions')}",
        "",
        "| partitions | | p50 at 200/s | p50 at 1,000/s | p99 at 1,000/s | CPU at 200/s | CPU at 1,000/s | backlog | "
        "connections | idle | all owned |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    )
    for count, figures in report["partitions"]["counts"].items():
        for system in PAIR:
            slow, fast = (figures["latency"][rate][system] for rate in ("200", "1000"))
            idle = figures["idle"]
            rest = (
                f"{idle['kafka_connections']['median']:.0f} | {idle['worker_percent']['median']:.1f} % | "
                f"{idle['acquired_seconds']['median']:.1f} s"
                if system == "service"
                else " | | "
            )
            yield (
                f"| {count} | {TITLES[system]} | {_milliseconds(slow['p50'])} | {_milliseconds(fast['p50'])} | "
                f"{_milliseconds(fast['p99'])} | {slow['cpu_us_per_command']['median']:,.0f} | "
                f"{fast['cpu_us_per_command']['median']:,.0f} | "
                f"{figures['backlog_per_second'][system]['median']:,.0f}/s | {rest} |"
            )
    yield ""


def _rates(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['min']:,.0f} - {spread['max']:,.0f})"


def _milliseconds(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return ""
    return f"{spread['median']:.1f} ({spread['min']:.1f} - {spread['max']:.1f})"


def kept() -> list[dict[str, Any]]:
    """Return the benchmark's reports in docs/measured, newest first."""
    files = [json.loads(file.read_text(encoding="utf-8")) for file in (_DOCS / KEPT).glob("*.json")]
    reports = [found for found in files if "ratios" in found]
    return sorted(reports, key=lambda report: str(report["at"]), reverse=True)


def _file_of(found: Mapping[str, Any]) -> Path:
    name = "-".join(re.findall("[a-z0-9]+", processor(found).lower()))
    return _DOCS / KEPT / f"{name}.json"


def main(again: bool = False) -> int:
    """Write the page, its charts and its report. Return 1 if there is no report. ``again`` restores the report."""
    build = Path("build")
    file = build / REPORT
    if again:
        ours = _file_of(machine())
        if not ours.exists():
            print(f"{ours} does not exist: this processor has not been measured yet", file=sys.stderr)
            return 1
        build.mkdir(exist_ok=True)
        shutil.copyfile(ours, file)
        print(f"{file}, as docs/{PAGE} shows it; measure a part, then make bench-page")
        return 0
    if not file.exists():
        print(f"{file} does not exist: make bench or make bench-full writes it", file=sys.stderr)
        return 1
    report = json.loads(file.read_text(encoding="utf-8"))
    ours = _file_of(report["machine"])
    ours.parent.mkdir(exist_ok=True)
    ours.write_text(json.dumps(report) + "\n", encoding="utf-8")
    reports = kept()
    (_DOCS / PAGE).write_text(page(reports), encoding="utf-8")
    drawn = pictures(reports)
    for name in PICTURES:
        (_DOCS / picture_file(name)).unlink(missing_ok=True)
    for name, picture in drawn.items():
        (_DOCS / picture_file(name)).write_text(picture, encoding="utf-8")
    print(
        f"docs/{PAGE}, docs/{KEPT}/{ours.name}", *(f"docs/{picture_file(name)}" for name in drawn), sep=", "
    )
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="put this processor's report back into build/")
    raise SystemExit(main(parser.parse_args().again))
