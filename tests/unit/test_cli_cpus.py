"""--processes auto: as many workers as this process may use cores."""

import os
from pathlib import Path

import pytest

from waypost_worker.cli.worker.app import usable_cpus


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 4),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("50000 100000\n", 1),
        ("900000 100000\n", 4),
        ("", 4),
    ],
)
def test_a_control_groups_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cpus(file) == cores


@pytest.mark.usefixtures("four_cores")
def test_without_a_quota_it_is_the_affinity_mask(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "absent") == 4
