"""The end of a test run says what was not tested, and why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

def test_that_passes(): pass

@pytest.mark.parametrize("number", [1, 2])
def test_with_a_tool(number): pytest.skip("the tool is not here")

@pytest.mark.skipif(True, reason="only root\\n  may do this")
def test_as_root(): pass

@pytest.mark.long
def test_that_takes_long(): pass
"""


def summary(directory: Path, *arguments: str) -> list[str]:
    """Run pytest on the file in a directory, and return the section."""
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = long\n")
    ran = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "tests.support.skips",
                "-p",
                "xdist",
                "-p",
                "no:cacheprovider",
            ),
            *arguments,
        ],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    first = next(number for number, line in enumerate(lines) if " not tested " in line) + 1
    last = next(number for number, line in enumerate(lines) if number >= first and line.startswith("=="))
    return list(filter(None, lines[first:last]))


@pytest.mark.parametrize("jobs", [(), ("-n", "2")], ids=["one process", "two jobs"])
def test_reasons_are_counted_and_what_was_deselected_is_too(tmp_path: Path, jobs: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    assert summary(tmp_path, "-m", "not long", *jobs) == [
        "    2  the tool is not here",
        "    1  only root may do this",
        "    1  deselected by -m 'not long'",
    ]


def test_a_run_of_everything_is_reported_as_one(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_that_passes(): pass\n")
    assert summary(tmp_path) == ["nothing: all tests ran"]
