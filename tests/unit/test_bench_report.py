"""The benchmark's arithmetic: spreads, percentiles, ratios, parts put together, and what is shown of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.support.svg import SVG, overlapping_texts
from tests.tools.bench import page as page_module
from tests.tools.bench.graphs import Measurements
from tests.tools.bench.machine import machine
from tests.tools.bench.merging import REPORT, merge
from tests.tools.bench.page import page, picture_file
from tests.tools.bench.partitions import COUNTS
from tests.tools.bench.picture import pictures
from tests.tools.bench.report import (
    at_least,
    at_most,
    ceiling,
    latency_figures,
    paired_ratio,
    percentile,
    ratios,
    spread,
)
from tests.tools.bench.table import DURABILITIES, GRAPHS, HISTORIES, PEERS, table

CPUS = 2


def run(per_second: float, loop: float) -> dict[str, Any]:
    cpu = {"loop": loop, "postgres_backends": 10.0, "postgres_background": 2.0, "kafka": 20.0, "load": 0.0}
    return {"per_second": per_second, "cpu_us_per_command": cpu}


def throughput(bare: list[float], service: list[float]) -> dict[str, Any]:
    systems = {
        "bare": {"spread": spread(bare), "runs": [run(value, 20) for value in bare]},
        "service": {"spread": spread(service), "runs": [run(value, 50) for value in service]},
        "cores": {"spread": spread(service), "runs": [run(value, 50) for value in service]},
    }
    return {"waiting": systems, "concurrent": systems}


def report(bare: list[float], service: list[float], milliseconds: list[float]) -> dict[str, Any]:
    figures = latency_figures([milliseconds, milliseconds])
    latency = {rate: {"bare": figures, "service": figures} for rate in ("200", "1000")}
    measured = throughput(bare, service)
    return {
        "at": "2026-11-24T12:00:00+00:00",
        "machine": {
            "cpu": "Some Processor <fast & long name> of 2026",
            "cpus": CPUS,
            "memory_gb": 23.0,
            "system": "Linux 6",
        },
        "versions": {"kafka": "4.3.1", "postgres": "18.4", "python": "3.11.9", "waypost": "0.1.0"},
        "configuration": {"plan": {"name": "short", "repeats": 3, "sessions": 2000, "partitions": 3}},
        "throughput": measured,
        "copy": {"500": {"spread": spread([20_000, 30_000])}},
        "latency": latency,
        "elsewhere_cores": spread([0.1, 0.2]),
        "ratios": ratios(measured, latency, CPUS),
    }


def test_a_percentile_is_a_measured_value_by_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 1001)]
    assert [percentile(ordered, part) for part in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
    assert percentile([7.0], 0.999) == 7.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0


def test_a_ratio_is_taken_pair_by_pair() -> None:
    # The machine was half as fast during the second pair; that changes no ratio.
    figure = paired_ratio([60, 30, 66], [100, 50, 100])
    assert (figure["value"], figure["pairs"]) == (0.6, [0.6, 0.6, 0.66])
    assert figure["spread"] == {"min": 0.6, "median": 0.6, "max": 0.66}


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_latencies_are_shown_per_run_and_together() -> None:
    figures = latency_figures([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    assert figures["p50"] == {"min": 2.0, "median": 11.0, "max": 20.0}
    assert figures["together"]["p50"] == 3.0
    assert figures["together"]["max"] == 30.0
    assert figures["together"]["samples"] == 6


def test_the_ceiling_is_the_loop_or_all_cores_whichever_is_lower() -> None:
    assert ceiling([run(1, 50)], CPUS) == 20_000  # one thread of 50 us
    assert ceiling([run(1, 20)], CPUS) == pytest.approx(1e6 / 26)  # 52 us together on two cores
    assert ceiling([run(1, 20)], 8) == 50_000


@pytest.mark.parametrize(("service", "met"), [([80.0, 80.0, 80.0], True), ([79.0, 79.0, 79.0], False)])
def test_a_promise_is_met_at_its_target_and_not_below(service: list[float], met: bool) -> None:
    found = report([100.0, 100.0, 100.0], service, [1.0])["ratios"]
    assert found["creates_service_over_bare"]["met"] is met


@pytest.mark.parametrize(("milliseconds", "met"), [(8.0, True), (8.1, False)])
def test_a_latency_is_met_up_to_its_target(milliseconds: float, met: bool) -> None:
    found = report([100.0] * 3, [70.0] * 3, [milliseconds])["ratios"]
    assert found["p50_ms_at_1000_per_second"]["met"] is met


# What shows that a part is there, in the table and on the page.
PARTS = {
    "throughput": "COPY alone",
    "latency": "1,000",
    "shapes": "replay",
    "peers": "Quix Streams, exactly once",
    "partitions": "96",
    "graphs": "WaypostSaver, logged",
}


def over_partitions(count: int) -> dict[str, Any]:
    steady = {**latency_figures([[1.0, float(count)]]), "cpu_us_per_command": spread([count * 10.0])}
    idle = ("acquired_seconds", "kafka_connections", "connections", "worker_percent", "kafka_percent")
    return {
        "latency": {rate: {"bare": steady, "service": steady} for rate in ("200", "1000")},
        "backlog_per_second": {"bare": spread([20_000.0]), "service": spread([18_000.0])},
        "idle": {name: spread([float(count)]) for name in idle},
    }


def of_graphs() -> dict[str, Any]:
    """Graphs whose run takes as many milliseconds as its history has messages, twice as long with the saver."""
    found = Measurements()
    for history in HISTORIES:
        times = {name: [2.0 * history if name == "saver" else history] * 3 for name in GRAPHS}
        for durability in DURABILITIES:
            found.take(
                {"part": "one", "durability": durability, "history": history, "ms": times, "cpu_ms": times}
            )
        rates = {name: [1_000.0, 2_000.0, 3_000.0] for name in GRAPHS}
        found.take({"part": "at_once", "history": history, "per_second": rates})
    return {**found.to_dict(), "ratios": found.ratios()}


def whole() -> dict[str, Any]:
    """A report with all parts."""
    rates = {name: spread([1_234.5, 30_000.0]) for name in PEERS}
    waits = {name: spread([3.21, 123.4]) for name in PEERS if name != "saver"}
    part = report([38_000.0] * 3, [12_000.0] * 3, [0.5, 1234.5])
    part["peers"] = {
        "commands_per_second": rates,
        "p50_ms_at_1000_per_second": waits,
        "p99_ms_at_1000_per_second": waits,
    }
    part["shapes"] = {
        "at_cap": {"bare": spread([30_000.0]), "service": spread([15_000.0])},
        "history": {"short": spread([25_000.0]), "1_gb": spread([24_000.0])},
        "replay": {"live": spread([25_000.0]), "replay": spread([45_000.0])},
        "takeover_sigterm_seconds": spread([0.4, 0.9], 2),
        "configuration": {"repeats": 3},
    }
    part["graphs"] = of_graphs()
    part["ratios"] |= part["graphs"].pop("ratios")
    part["partitions"] = {"counts": {str(count): over_partitions(count) for count in COUNTS}}
    part["ratios"]["creates_service_over_saver"] = at_least(paired_ratio([30.0], [1.0]), 20)
    part["ratios"]["million_sessions_worker_mb"] = at_most({"value": 400, "unit": "MB"}, 400)
    return part


def test_the_table_fits_a_terminal_and_shows_what_is_not_met() -> None:
    text = table(whole())
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "NOT" in text
    assert "12,000" in text
    assert "Kafka Streams" in text


@pytest.mark.parametrize("missing", PARTS)
@pytest.mark.parametrize("show", [table, lambda report: page([report])])
def test_every_part_is_shown_even_without_another(missing: str, show: Callable[[Any], str]) -> None:
    part = whole()
    del part[missing]
    shown = show(part)
    assert [name for name, sign in PARTS.items() if name != missing and sign not in shown] == []


CHARTS = {"throughput": "peers", "latency": "latency", "partitions": "partitions"}


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


@pytest.mark.parametrize("chart", CHARTS)
def test_there_is_a_chart_for_each_part_that_was_measured(chart: str) -> None:
    part = whole()
    assert pictures([part]).keys() == CHARTS.keys()
    assert f"({picture_file(chart)})" in page([part])
    del part[CHARTS[chart]]
    assert pictures([part]).keys() == CHARTS.keys() - {chart}
    assert f"({picture_file(chart)})" not in page([part])


def test_a_part_that_the_newest_report_lacks_comes_from_another_one() -> None:
    newest, older = whole(), whole()
    older["machine"]["cpu"] = "Another Processor"
    older["partitions"]["measured"] = {"at": "2026-11-30T00:00:00+00:00"}
    del newest["partitions"], newest["graphs"]
    drawn = pictures([newest, older])
    assert any("cores of Another" in text for text in texts(drawn["partitions"]))
    assert not any("Another" in text for text in texts(drawn["latency"]))
    text = page([newest, older])
    assert "Measured on the Another, 2026-11-30." in text
    assert f"Measured on the Another, {older['at'][:10]}." in text


def test_the_charts_name_what_they_show() -> None:
    shown = {name: texts(picture) for name, picture in pictures([whole()]).items()}
    assert {"15,617", "LangGraph saver", "checkpoints of 1 KB per second"} <= set(shown["throughput"])
    assert {"Waypost, median", "Kafka Streams, median", "milliseconds", "1,000"} <= set(shown["latency"])
    assert {"Waypost, 200/s", "Bare loop, 1,000/s", "96"} <= set(shown["partitions"])
    for words in shown.values():
        assert any("<fast & long name>" in text for text in words)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_texts_of_a_chart_fit_and_do_not_overlap(chart: str) -> None:
    assert overlapping_texts(ElementTree.fromstring(pictures([whole()])[chart])) == []


def test_the_page_shows_each_promise_with_its_target() -> None:
    lines = page([whole()]).splitlines()
    (saver,) = [line for line in lines if "AsyncPostgresSaver |" in line and ">= 20" in line]
    assert ">= 20 | 30 (30 - 30), met |" in saver
    (bare,) = [line for line in lines if "1 KB creates with one process, compared with the bare loop" in line]
    assert "**not met**" in bare


def test_the_page_has_all_machines_in_parallel_columns() -> None:
    newer, older = whole(), whole()
    newer["machine"]["cpu"] = "Some(R) Fast(TM) CPU @ 3.00GHz"
    older["machine"]["cpu"] = "Another Processor"
    older["ratios"]["creates_service_over_saver"] = at_least(paired_ratio([19.0], [1.0]), 20)
    del newer["ratios"]["million_sessions_worker_mb"]
    lines = page([newer, older]).splitlines()
    (head,) = [line for line in lines if line.startswith("| figure ")]
    assert head == f"| figure | target | Some Fast, {newer['at'][:10]} | Another, {older['at'][:10]} |"
    (saver,) = [line for line in lines if "AsyncPostgresSaver |" in line and ">= 20" in line]
    assert saver.endswith("| >= 20 | 30 (30 - 30), met | 19 (19 - 19), **not met** |")
    (memory,) = [line for line in lines if line.startswith("| memory of a worker")]
    assert memory.endswith("| <= 400 |  | 400 MB, met |")


def test_the_page_names_the_machines_whose_broker_was_cold_next_to_peers() -> None:
    warm, cold = whole(), whole()
    warm["peers"]["warmed_up"] = True
    cold["machine"]["cpu"] = "Another Processor"
    assert "each of the peers (not yet on the Another)." in page([warm, cold])
    assert "each of the peers." in page([warm])


def test_the_page_has_a_graph_with_each_checkpointer_and_history() -> None:
    lines = page([whole()]).splitlines()
    assert "| durability | checkpointer | 1 message | 10 messages | 200 messages |" in lines
    for durability in DURABILITIES:
        assert (
            f"| {durability} | AsyncPostgresSaver | 2.0 (2.0 - 2.0) | 20.0 (20.0 - 20.0) | 400.0 (400.0 - 400.0) |"
        ) in lines
    at_once = " | 2,000 (1,000 - 3,000)" * len(HISTORIES)
    assert [line for line in lines if line.startswith("| WaypostSaver, accepted")] == [
        f"| WaypostSaver, accepted{at_once} |"
    ]
    (goal,) = [line for line in lines if "five nodes, logged" in line]
    assert "| <= 0.5 | 0.5 (0.5 - 0.5), met |" in goal


@pytest.mark.parametrize(("bare", "told"), [(8.5, ", nor by the bare loop (8.5)"), (8.0, "")])
def test_the_page_says_what_not_even_the_bare_loop_reaches(bare: float, told: str) -> None:
    report = whole()
    report["latency"]["1000"]["bare"]["p50"] = spread([bare])
    report["ratios"]["p50_ms_at_1000_per_second"] = at_most({"value": 9, "unit": "ms"}, 8)
    (line,) = [line for line in page([report]).splitlines() if "at 1,000 per second, p50 |" in line]
    assert line.endswith(f"| <= 8 | 9 ms, **not met**{told} |")


def test_a_part_takes_the_place_of_its_own_figures_only(tmp_path: Path) -> None:
    first = whole()
    merge(tmp_path, first, first.pop("ratios"))
    told = merge(tmp_path, {"shapes": {"at_cap": {"bare": spread([2.0]), "service": spread([1.0])}}}, {})
    assert told["shapes"]["at_cap"]["bare"]["median"] == 2.0
    assert told["shapes"]["replay"] == first["shapes"]["replay"]
    assert "creates_service_over_saver" in told["ratios"]
    assert json.loads((tmp_path / REPORT).read_text(encoding="utf-8")) == told
    for name, picture in pictures([told]).items():
        assert (tmp_path / f"bench-{name}.svg").read_text(encoding="utf-8") == picture


def test_the_page_keeps_the_report_that_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, build = tmp_path / "docs", tmp_path / "build"
    docs.mkdir()
    build.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page_module, "_DOCS", docs)
    assert page_module.main() == 1
    first = whole()
    first["machine"] = machine()
    told = merge(build, first, first.pop("ratios"))
    assert page_module.main() == 0
    (build / REPORT).unlink()
    assert page_module.main(again=True) == 0
    assert json.loads((build / REPORT).read_text(encoding="utf-8")) == told
    assert (docs / page_module.PAGE).read_text(encoding="utf-8") == page([told])


def test_a_machine_of_another_kind_takes_nothing_from_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs, build = tmp_path / "docs", tmp_path / "build"
    docs.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page_module, "_DOCS", docs)
    told = []
    for cpu, at in (("A", "2026-11-28T00:00:00+00:00"), ("B", "2026-11-29T00:00:00+00:00")):
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        part = whole()
        part["machine"]["cpu"], part["at"] = cpu, at
        told.append(merge(build, part, part.pop("ratios")))
        assert page_module.main() == 0
    assert (docs / page_module.PAGE).read_text(encoding="utf-8") == page(told[::-1])
    for name, picture in pictures(told[::-1]).items():
        assert (docs / picture_file(name)).read_text(encoding="utf-8") == picture
    assert page_module.main(again=True) == 1  # this processor is neither of them


def test_the_page_in_docs_is_that_of_the_reports_next_to_it() -> None:
    reports = page_module.kept()
    assert (page_module._DOCS / page_module.PAGE).read_text(encoding="utf-8") == page(reports)
    kept = {
        path.name: path.read_text(encoding="utf-8") for path in page_module._DOCS.glob("performance*.svg")
    }
    assert kept == {picture_file(name): picture for name, picture in pictures(reports).items()}
