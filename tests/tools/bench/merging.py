"""One report of parts that are measured one at a time: ``build/bench.json`` and its charts.

Each part says when, where and with what it was measured; a part that is measured again takes the place of its own
figures only.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.tools.bench.machine import machine, versions
from tests.tools.bench.picture import pictures

REPORT: Final = "bench.json"


def measured(postgres: Mapping[str, str]) -> dict[str, Any]:
    """When and on what; ``postgres`` are the server's facts."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(postgres["server_version"]),
    }


def merge(build: Path, part: Mapping[str, Any], ratios: Mapping[str, Any]) -> dict[str, Any]:
    """Add a part to the report and write the files; return the whole report. Mappings in ``part`` are added to."""
    file = build / REPORT
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name, value in part.items():
        known = report.get(name)
        report[name] = {**known, **value} if isinstance(value, dict) and isinstance(known, dict) else value
    report["ratios"] = {**report.get("ratios", {}), **ratios}
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, picture in pictures([report]).items():
        (build / f"bench-{name}.svg").write_text(picture, encoding="utf-8")
    return report
