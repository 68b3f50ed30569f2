"""The benchmark's arithmetic: spreads, percentiles, ratios and what is shown of them."""

from typing import Any
from xml.etree import ElementTree

import pytest
from tests.bench.picture import draw
from tests.bench.report import (
    ceiling,
    latency_figures,
    paired_ratio,
    percentile,
    ratios,
    spread,
    table,
)

CPUS = 2


def run(per_second: float, loop: float) -> dict[str, Any]:
    cpu = {"loop": loop, "postgres_backends": 10.0, "postgres_background": 2.0, "kafka": 20.0, "load": 0.0}
    return {"per_second": per_second, "cpu_us_per_command": cpu}


def throughput(bare: list[float], service: list[float]) -> dict[str, Any]:
    systems = {
        "bare": {"spread": spread(bare), "runs": [run(value, 20) for value in bare]},
        "service": {"spread": spread(service), "runs": [run(value, 50) for value in service]},
    }
    return {"waiting": systems, "concurrent": systems}


def report(bare: list[float], service: list[float], milliseconds: list[float]) -> dict[str, Any]:
    figures = latency_figures([milliseconds, milliseconds])
    latency = {rate: {"bare": figures, "service": figures} for rate in ("200", "1000")}
    measured = throughput(bare, service)
    return {
        "machine": {"cpu": "Some Processor <fast & long name> of 2026", "cpus": CPUS},
        "versions": {"kafka": "4.3.1", "postgres": "18.4"},
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
    assert paired_ratio([60, 30, 66], [100, 50, 100]) == {"value": 0.6, "pairs": [0.6, 0.6, 0.66]}


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_latencies_are_told_per_run_and_together() -> None:
    figures = latency_figures([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    assert figures["p50"] == {"min": 2.0, "median": 11.0, "max": 20.0}
    assert figures["together"]["p50"] == 3.0
    assert figures["together"]["max"] == 30.0
    assert figures["together"]["samples"] == 6


def test_the_ceiling_is_the_loop_or_all_cores_whichever_is_lower() -> None:
    assert ceiling([run(1, 50)], CPUS) == 20_000  # one thread of 50 us
    assert ceiling([run(1, 20)], CPUS) == pytest.approx(1e6 / 26)  # 52 us together on two cores
    assert ceiling([run(1, 20)], 8) == 50_000


@pytest.mark.parametrize(("service", "met"), [([60.0, 60.0, 60.0], True), ([59.0, 59.0, 59.0], False)])
def test_a_promise_is_met_at_its_target_and_not_below(service: list[float], met: bool) -> None:
    found = report([100.0, 100.0, 100.0], service, [1.0])["ratios"]
    assert found["creates_service_over_bare"]["met"] is met


@pytest.mark.parametrize(("milliseconds", "met"), [(15.0, True), (15.1, False)])
def test_a_latency_is_met_up_to_its_target(milliseconds: float, met: bool) -> None:
    found = report([100.0] * 3, [70.0] * 3, [milliseconds])["ratios"]
    assert found["p50_ms_at_1000_per_second"]["met"] is met


def test_the_table_fits_a_terminal_and_shows_what_is_not_met() -> None:
    text = table(report([38_000.0] * 3, [12_000.0] * 3, [0.5, 1234.5]))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "NOT" in text
    assert "12,000" in text


def test_the_picture_is_well_formed() -> None:
    root = ElementTree.fromstring(draw(report([38_000.0] * 3, [12_000.0] * 3, [0.1, 1234.5])))
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "12,000" in texts
    assert any("<fast & long name>" in text for text in texts)
