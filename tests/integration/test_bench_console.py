"""The console's benchmark, with a short session: every page is answered and timed."""

import pytest
from tests.support.cli import CommandLine
from tests.support.worker_deployment import own
from tests.tools.bench.console import lines, measure, pages

__all__ = ["own"]

pytestmark = pytest.mark.servers


def test_it_times_a_cold_start_and_every_page_of_a_whole_session(own: CommandLine) -> None:
    measured = measure(own, 120, 2)
    assert own.run("session", "policy", "bench", "-o", "json").json["kept"] == "120 of 120"
    assert set(measured["pages"]) == set(pages(120))
    for page in measured["pages"].values():
        assert 0 < page["p50_ms"] <= page["p99_ms"]
    assert 0 < measured["cold_start"]["p50_s"] <= measured["cold_start"]["longest_s"]
    assert measured["cold_start"]["first_page_bytes"] < 60_000
    assert len(lines(measured)) == 1 + len(measured["pages"])
