"""A trap that tells whether reading a stored value ran or imported something."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

UNKNOWN = "waypost_hostile_sentinel"  # a module that can be imported, and was not


@dataclass(frozen=True)
class Trap:
    """Tells whether something was run or imported."""

    marker: Path

    def sprung(self) -> bool:
        return self.marker.exists() or UNKNOWN in sys.modules


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    marker = tmp_path / "was-run"
    folder = tmp_path / "importable"
    folder.mkdir()
    source = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Thing: pass\n"
    (folder / f"{UNKNOWN}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield Trap(marker)
    sys.modules.pop(UNKNOWN, None)
