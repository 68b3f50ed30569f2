"""``python -m tests.tools.bench.page``: docs/performance.md and its picture, from ``build/bench.json``.

The report is kept in docs/measured, one for each kind of processor: all of them are on the page, the newest with all
its figures. ``--again`` puts the one of this processor back into ``build``, so that one part can be measured anew.
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
from tests.tools.bench.picture import draw
from tests.tools.bench.report import PAIR, TITLES
from tests.tools.bench.table import GRAPHS, HISTORIES, PEERS

_DOCS: Final = Path(__file__).parents[3] / "docs"
PAGE: Final = "performance.md"
KEPT: Final = "measured"
PICTURE_KEPT: Final = "performance.svg"
_ABOUT_THE_NAME: Final = re.compile(r"\((?:R|TM)\)|\b(?:CPU|Processor)\b|@.*")
_LATENCY: Final = re.compile(r"(p\d+)_ms_at_(\d+)_per_second")
_SHAPES: Final = {
    "at_cap": "1 KB, every session at its cap: each create removes one",
    "data_10_kb": "data of 10 KB",
    "data_100_kb": "data of 100 KB",
}
_MEANINGS: Final = {
    "creates_service_over_bare": "creates of 1 KB with one process, to the bare loop",
    "creates_service_over_bare_with_publisher": "same, with a publisher at full speed on the same cores",
    "creates_service_on_all_cores_over_bare": "creates of 1 KB with a process for each core, to the bare loop",
    "creates_service_on_all_cores_over_bare_with_publisher": "same, with a publisher",
    "creates_service_over_bare_by_cpu_time": "creates of 1 KB, one process, by CPU time alone",
    "creates_service_over_saver": "creates, to LangGraph's AsyncPostgresSaver",
    "creates_service_over_streams_or_quix": "creates, to the better of Kafka Streams and Quix Streams",
    "at_cap_service_over_bare": "every session at its cap, to the bare loop",
    "data_10_kb_service_over_bare": "10 KB of data, to the bare loop, MB/s",
    "data_100_kb_service_over_bare": "100 KB of data, to the bare loop, MB/s",
    "creates_once_loaded_after_1_gb_over_short_history": (
        "creates of a new worker with 1 GB of history in Postgres, to those with 20 MB, once it met each session"
    ),
    "creates_with_loading_after_1_gb_over_short_history": "same, with loading what the sessions hold",
    "replay_over_live": "replay into an empty database, to the live worker",
    "p50_ms_at_200_per_second": "publish to visible result at 200 a second, p50",
    "p99_ms_at_200_per_second": "same, p99",
    "p50_ms_at_1000_per_second": "publish to visible result at 1,000 a second, p50",
    "p99_ms_at_1000_per_second": "same, p99",
    "p50_service_over_bare_at_200_per_second": "p50 at 200 a second, to the bare loop's",
    "p50_service_over_bare_at_1000_per_second": "p50 at 1,000 a second, to the bare loop's",
    "p50_service_over_streams_or_quix_at_1000_per_second": (
        "p50 at 1,000 a second, to the better of Kafka Streams and Quix Streams"
    ),
    "p50_at_1000_per_second_with_24_partitions_over_3": "p50 at 1,000 a second with 24 partitions, to that with 3",
    "p50_at_1000_per_second_with_96_partitions_over_3": "same, with 96 partitions",
    "p50_service_over_bare_at_1000_per_second_with_24_partitions": (
        "p50 at 1,000 a second with 24 partitions, to the bare loop's"
    ),
    "cpu_at_200_per_second_with_24_partitions_over_3": (
        "CPU of worker, Kafka, and Postgres for a create at 200 a second with 24 partitions, to that with 3"
    ),
    "backlog_with_96_partitions_over_3": "creates from a backlog with 96 partitions, to those with 3",
    "idle_kafka_connections_with_96_partitions": "connections of a worker with 96 partitions to one broker",
    "idle_worker_percent_with_96_partitions": "CPU of a worker with 96 partitions and no commands",
    "graph_ms_logged_over_saver": "LangGraph's graph of five nodes, logged, to LangGraph's AsyncPostgresSaver",
    "graph_ms_accepted_over_memory": "same, accepted, to LangGraph's InMemorySaver",
    "graphs_at_once_logged_over_saver": "50 such graphs at once, logged, to LangGraph's AsyncPostgresSaver",
    "graphs_at_once_logged_over_memory": "same, to LangGraph's InMemorySaver",
    "takeover_sigterm_seconds": "results pause when one of two workers gets SIGTERM",
    "takeover_sigkill_seconds": "results pause when one of two workers gets SIGKILL (session timeout + 1 s)",
    "million_sessions_worker_mb": "memory of a worker that served a million sessions",
}
_INTRODUCTION: Final = """# Performance

<!-- Made from build/bench.json by `make bench-page`; change tests/tools/bench/page.py. -->

Where Waypost lies between the least that can be done, a **bare loop** (fetch, parse, `COPY` and one row's update in a
transaction, append the result: no validation, no sessions, no retention, nothing that would make a command count
once), and what one would take otherwise: LangGraph's Postgres saver, Kafka Streams and Quix Streams exactly once. All
of them take turns in one run, on one machine with broker, database, worker and load together: **ratios** say
something, the plain numbers are that machine's. To repeat it:

```bash
make bench        # ten minutes: the service beside the bare loop, with 3, 24, and 96 partitions
make bench-full   # two hours: more repeats, other shapes of load, the peers; build/bench.json and build/bench.svg
make bench-page   # this page from it
```
"""
_METHOD: Final = """## How it is measured

- Throughput is taken from the broker's times of the results, between the first 10 and the last 5 percent; commands
  wait in the topic, or are published meanwhile. A system's start is in none of the figures.
- A worker is one thread, as the bare loop is. "All cores" is `waypost worker --processes auto`: a worker for each core,
  which share the partitions.
- Latency is an open loop: each command carries its intended time, and is counted from there also when it was sent
  late. The subscriber is a default Kafka consumer in a process of its own; that of a transactional system reads
  committed records, for there is nothing else to be seen. Before the first one counts, the same traffic runs until
  the broker's compiler is done with the paths of small requests, as in any broker that has run for some minutes. The
  same goes for each of the systems that Waypost is measured beside{exception}.
- Before each measurement Postgres and the kernel write out what earlier ones left, and latencies come before the large
  runs: else a commit waits for the leavings of others.
- Peers are set up as their documentation says for exactly once. The two with transactions keep sessions in a local
  store and write no Postgres; the saver has no Kafka and no results, an agent waits for the put itself. The best of
  several pool sizes, threads and processes goes on, of Waypost's too.
- Replay compares each result that it makes again with the topic. What its speed is compared with is the worker that ran
  before it on the same commands.
- Figures of one machine are no promise for another. Where two cores are busy with broker, database, publisher and
  subscriber alone, a command waits its turn in any service: see the bare loop's latencies beside Waypost's. What limits
  larger deployments: [scaling](scaling.md).
"""


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The page's text, newest report first; figures that a report lacks are left out."""
    newest = reports[0]
    return "\n".join(
        (
            _INTRODUCTION,
            *_promises(reports),
            *_where(newest),
            "",
            "![Throughput, promises, and latency over rate](performance.svg)",
            "",
            *_throughput(newest),
            *_peers(newest),
            *_graphs(newest),
            *_shapes(newest),
            *_latency(newest),
            *_partitions(newest),
            _METHOD.format(exception=_not_warmed_up(reports)),
        )
    )


def _processor(found: Mapping[str, Any]) -> str:
    """A processor's name without what its maker adds to it."""
    return " ".join(_ABOUT_THE_NAME.sub(" ", found["cpu"]).split())


def _where(report: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = report["machine"], report["versions"]
    yield (
        f"All that follows: {machine['cpus']} x {machine['cpu']}, {machine['memory_gb']:g} GB, {machine['system']}; "
        f"Python {versions['python']}, Kafka {versions['kafka']}, Postgres {versions['postgres']} (fsync on), Waypost "
        f"{versions['waypost']}; measured {report['at'][:10]}."
    )
    if "elsewhere_cores" in report:
        yield f"Others kept {report['elsewhere_cores']['median']:.1f} cores busy meanwhile."


def _promises(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    where = " | ".join(f"{_processor(one['machine'])}, {one['at'][:10]}" for one in reports)
    yield from (
        "## Ratios and targets",
        "",
        "The median of the repeats, and the lowest and highest of them.",
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
    """Of a latency that is not met: the bare loop's, if the machine does not allow that one either."""
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
    return f" (not yet so on the {', '.join(_processor(one['machine']) for one in cold)})" if cold else ""


def _throughput(report: Mapping[str, Any]) -> Iterator[str]:
    if "throughput" not in report:
        return
    yield from (
        "## Beside the bare loop",
        "",
        "Creates of 1 KB a second, 2,000 sessions, 3 partitions; CPU in microseconds for each command.",
        "",
        "| | a second | worker or loop | Postgres | Kafka |",
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
        "## Beside what one would take otherwise",
        "",
        "| | creates a second | p50 at 1,000 a second | p99 | database | results as events |",
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


def _graphs(report: Mapping[str, Any]) -> Iterator[str]:
    graphs = report.get("graphs")
    if graphs is None:
        return
    yield from (
        "## A LangGraph graph with each checkpointer",
        "",
        "Five nodes in a row, each of which adds a message of 200 characters to a history that has 1, 10 or 200 of "
        "them at the start. All checkpointers take turns in one process. A write of WaypostSaver returns when the "
        "publisher has it (accepted), when Kafka has it (logged, the default), or when a worker applied it (applied). "
        "LangGraph's durability is when a graph waits for its checkpointer. Milliseconds for a run: the median "
        "(lowest - highest).",
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
        "50 graphs at once, durability async: runs per second.",
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
                f"| creates of 1 KB with {title} of history, service | {_rates(shapes['history'][name])} |"
            )
    if "replay" in shapes:
        rows.append(f"| a worker, live, before the replay | {_rates(shapes['replay']['live'])} |")
        rows.append(f"| replay of the same commands, all compared | {_rates(shapes['replay']['replay'])} |")
    if rows:
        yield from ("## Other shapes of load", "", "| | commands a second |", "|---|---|", *rows, "")


def _latency(report: Mapping[str, Any]) -> Iterator[str]:
    if "latency" not in report:
        return
    yield from (
        "## Publish to visible result",
        "",
        "Milliseconds, median of the repeats (lowest - highest).",
        "",
        "| commands a second | | p50 | p99 | p99.9 |",
        "|---|---|---|---|---|",
    )
    for rate, systems in report["latency"].items():
        for system, figures in systems.items():
            cells = " | ".join(_milliseconds(figures[name]) for name in ("p50", "p99", "p99.9"))
            yield f"| {int(rate):,} | {TITLES[system]} | {cells} |"
    yield ""


def _partitions(report: Mapping[str, Any]) -> Iterator[str]:
    if "partitions" not in report:
        return
    yield from (
        "## What partitions cost",
        "",
        "One worker, or the bare loop, for all partitions of one broker. CPU is that of worker or loop, Kafka, and "
        "Postgres together, in microseconds for each create. The last three columns are a worker without commands: "
        "connections to the broker, share of a core, and seconds from the start of its process until it owns all "
        "partitions.",
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
    """The reports in docs/measured, newest first."""
    reports = [json.loads(file.read_text(encoding="utf-8")) for file in (_DOCS / KEPT).glob("*.json")]
    return sorted(reports, key=lambda report: str(report["at"]), reverse=True)


def _file_of(found: Mapping[str, Any]) -> Path:
    name = "-".join(re.findall("[a-z0-9]+", _processor(found).lower()))
    return _DOCS / KEPT / f"{name}.json"


def main(again: bool = False) -> int:
    """Write the page, its picture and its report. Exit code 1 if there is no report. ``again`` goes the other way."""
    build = Path("build")
    file = build / REPORT
    if again:
        ours = _file_of(machine())
        if not ours.exists():
            print(f"{ours} is not there: no such processor was measured yet", file=sys.stderr)
            return 1
        build.mkdir(exist_ok=True)
        shutil.copyfile(ours, file)
        print(f"{file}, as docs/{PAGE} shows it; measure a part, then make bench-page")
        return 0
    if not file.exists():
        print(f"{file} is not there: make bench or make bench-full writes it", file=sys.stderr)
        return 1
    report = json.loads(file.read_text(encoding="utf-8"))
    ours = _file_of(report["machine"])
    ours.parent.mkdir(exist_ok=True)
    ours.write_text(json.dumps(report) + "\n", encoding="utf-8")
    reports = kept()
    (_DOCS / PAGE).write_text(page(reports), encoding="utf-8")
    (_DOCS / PICTURE_KEPT).write_text(draw(reports[0]), encoding="utf-8")
    print(f"docs/{PAGE}, docs/{KEPT}/{ours.name}, docs/{PICTURE_KEPT}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="put this processor's report back into build/")
    raise SystemExit(main(parser.parse_args().again))
