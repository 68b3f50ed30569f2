"""``python -m tests.mutants.mutmut``: small changes to the pure model, all of which its tests must notice.

mutmut makes them (another operator, another constant, an argument left out) and runs the tests that reach the
changed function. It expects the code below ``src``, so the model and its tests are copied into build/mutmut. Those
that no test notices must be in SURVIVORS of tests.mutants.survivors, with the reason; anything else fails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.mutants.survivors import SURVIVORS

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "mutmut"
REPORT = ROOT / "build" / "mutmut.json"
MODULES = (
    "model/session",
    "model/index",
    "model/retention",
    "model/partition_state",
    "model/authority",
    "model/checkpoint",
    "model/decisions",
)
# The rest of the model, each with the reason why small changes to it are not tried.
EXCEPTED = {
    "model/commands": "has no functions",
    "model/brackets": "tests/properties/test_hostile_text.py compares it with a second implementation",
    "model/encrypted_data": "tests/properties/test_encryption.py compares it with a second implementation",
    "model/limits": "tests/properties/test_hostile_text.py and test_raw_json.py compare it with other parsers",
    "model/preview": "tests/properties/test_preview.py compares it with what the commands do",
    "model/tenants": "tests/unit/test_tenants.py compares it with all session ids that Hypothesis makes",
    "model/retention_index": "tests/properties/test_retention_index.py compares it with retention, which is listed",
    "model/times": "tests/properties/test_times.py compares it with datetime",
}
TESTS = (
    "tests/unit/test_session.py",
    "tests/unit/test_session_duplicates.py",
    "tests/unit/test_session_erasure.py",
    "tests/unit/test_session_expiry.py",
    "tests/unit/test_session_import.py",
    "tests/unit/test_session_index.py",
    "tests/unit/test_indexed_retention.py",
    "tests/unit/test_encrypted_sessions.py",
    "tests/unit/test_retention.py",
    "tests/unit/test_partition_state.py",
    "tests/unit/test_checkpoint.py",
    "tests/unit/test_manager.py",
)
# What the tests import, below tests/.
_IMPORTED = ("unit", "support", "oracle", "properties")
_SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false

[tool.pytest.ini_options]
addopts = "--import-mode=importlib -p no:cacheprovider"
asyncio_mode = "auto"
markers = ["servers"]
"""


def prepare() -> None:
    """Copy what mutmut needs to a place of its own; results of an earlier run there are kept."""
    PLACE.mkdir(parents=True, exist_ok=True)
    folders = [("schemas/waypost", "src/waypost"), *((f"tests/{name}",) * 2 for name in _IMPORTED)]
    for source, target in folders:
        shutil.rmtree(PLACE / target, ignore_errors=True)
        shutil.copytree(ROOT / source, PLACE / target, ignore=shutil.ignore_patterns("__pycache__"))
    settings = _SETTINGS.format(
        modules=json.dumps([f"src/waypost/{module}.py" for module in MODULES]), tests=json.dumps(list(TESTS))
    )
    (PLACE / "pyproject.toml").write_text(settings)


def verdicts() -> dict[str, str]:
    """What mutmut found of each mutant, by name."""
    said = _mutmut("results", "--all", "true", capture=True)
    lines = [line.strip().rpartition(": ") for line in said.splitlines() if ": " in line]
    return {name: verdict for name, _, verdict in lines}


def _mutmut(*arguments: str, capture: bool = False) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=PLACE,
        capture_output=capture,
        text=True,
        check=False,
    )
    return ran.stdout or ""


def main() -> int:
    """Parse, run, report; 1 if something survived unexplained, or an explained one did not survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.mutmut", description=__doc__)
    parser.add_argument("--modules", nargs="*", default=list(MODULES), help="only these (default: all)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    parser.add_argument("--afresh", action="store_true", help="forget the results of an earlier run")
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.afresh:
        shutil.rmtree(PLACE, ignore_errors=True)
    prepare()
    chosen = tuple(f"waypost.{module.replace('/', '.')}." for module in arguments.modules)
    _mutmut("run", "--max-children", str(arguments.jobs), *(f"{start}*" for start in chosen))
    found = {name: verdict for name, verdict in verdicts().items() if name.startswith(chosen)}
    counted = Counter(found.values())
    survived = {name for name, verdict in found.items() if verdict not in ("killed", "timeout")}
    explained = {name for name in SURVIVORS if name in found}
    report = {
        "mutants": len(found),
        "verdicts": dict(counted),
        "unexplained": sorted(survived - explained),
        "explained_but_killed": sorted(explained - survived),
        "survivors": {name: SURVIVORS[name] for name in sorted(survived & explained)},
        "seconds": round(time.monotonic() - began, 1),
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"{len(found)} small changes: {dict(counted)}; {len(survived & explained)} of the survivors explained"
    )
    for name in report["unexplained"]:  # type: ignore[attr-defined]
        print(f"survived ({found[name]}): {name}")
        if found[name] == "survived":
            print(_mutmut("show", name, capture=True))
    for name in report["explained_but_killed"]:  # type: ignore[attr-defined]
        print(f"explained, but noticed now: {name}")
    return 1 if not found or report["unexplained"] or report["explained_but_killed"] else 0


if __name__ == "__main__":
    sys.exit(main())
