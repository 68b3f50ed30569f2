"""Which alerts would fire if what workers show went on: two scrapes of each, continued for an hour in promtool."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.samples import Sample

RULES = Path(__file__).parents[2] / "deploy/prometheus/waypost.rules.yaml"
_MINUTES = 90
Look = tuple[Sequence[Sample], Sequence[Sample]]


def firing(scratch: Path, *workers: Look) -> set[str]:
    """The alerts that fire in the end; of each worker two looks, which count as a minute apart."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text())
    names = {rule["alert"] for rule in rules["groups"][0]["rules"]}
    quiet = [{"alertname": name, "eval_time": f"{_MINUTES}m", "exp_alerts": []} for name in sorted(names)]
    series = [
        one for number, (before, after) in enumerate(workers) for one in _continued(before, after, number)
    ]
    case = {"interval": "1m", "input_series": series, "alert_rule_test": quiet}
    file = scratch / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [case]}))
    done = subprocess.run(
        [promtool(), "test", "rules", str(file)], check=False, capture_output=True, text=True, timeout=60
    )
    said = done.stdout + done.stderr
    found = set(re.findall(r'alertname="(\w+)"', said))
    assert found <= names
    assert bool(done.returncode) == bool(found), said
    return found


def _continued(before: Sequence[Sample], after: Sequence[Sample], worker: int) -> list[dict[str, str]]:
    """Counters go on as they went, gauges stay."""
    earlier = {(sample.name, tuple(sample.labels.items())): sample.value for sample in before}
    series = []
    for sample in after:
        change = sample.value - earlier.get((sample.name, tuple(sample.labels.items())), 0)
        if sample.name.endswith("_timestamp_seconds"):
            # promtool's clock begins at 0.
            values = f"0+60x{_MINUTES}" if change else f"0x{_MINUTES}"
        elif sample.name.endswith(("_total", "_count", "_sum", "_bucket")):
            values = f"0+{change:.6f}x{_MINUTES}"
        else:
            values = f"{sample.value:.6f}x{_MINUTES}"
        named = {**sample.labels, "instance": f"worker-{worker}"}
        labels = ", ".join(f'{name}="{value}"' for name, value in named.items())
        series.append({"series": f"{sample.name}{{{labels}}}", "values": values})
    return [one for one in series if one["series"].startswith("waypost_")]


def promtool() -> str:
    """Its path; skips the test where it is not installed."""
    beside = Path(sys.executable).parent / "promtool"
    found = str(beside) if beside.exists() else shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here: 'make promtool' takes it from Debian's package prometheus")
    return found
