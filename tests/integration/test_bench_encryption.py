"""The benchmark of encryption, with a few commands: both kinds are timed, and both workers apply everything."""

from pathlib import Path

from tests.tools.bench.encryption import lines, measure

from waypost_worker.devserver import Servers


def test_it_times_calls_and_workers_with_and_without_a_codec(servers: Servers, tmp_path: Path) -> None:
    measured = measure(servers, tmp_path, calls=200, commands=600, repeats=1)
    for kind in ("plain", "encrypted"):
        calls = measured["calls"][kind]
        assert 0 < calls["p50_us"] <= calls["p99_us"]
        (rate,) = measured["worker"]["commands_per_second"][kind]
        assert rate >= 0
    assert len(lines(measured)) == 2
