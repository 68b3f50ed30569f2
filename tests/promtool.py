"""Prometheus' promtool, where it is: beside this interpreter (make setup puts it there) or on the path."""

import shutil
import sys
from pathlib import Path

import pytest


def promtool() -> str:
    """Its path; skips the test where it is not installed."""
    beside = Path(sys.executable).parent / "promtool"
    found = str(beside) if beside.exists() else shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not here: 'make promtool' takes it from Debian's package prometheus")
    return found
