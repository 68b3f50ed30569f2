"""The tutorial, typed in order beside a running ``waypost dev``: every command does what the page says."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.support.cli import WAYPOST, environment

from waypost_worker.devserver import Servers

PAGE: Final = Path(__file__).parents[2] / "docs" / "tutorial.md"
# What a reader sees after some of them.
SHOWN: Final = {
    "session list": "trip-to-rome",
    "rejected list": "unknown-checkpoint",
    "tail": "unknown-checkpoint",
    "rollback trip-to-rome:1 --discard-later --dry-run": "trip-to-rome:3",
    "diff": "flight_found",
    "show trip-to-rome --schema rebuilt": "plan_made",
}


def typed() -> list[str]:
    """The commands of the page but for ``waypost dev`` itself."""
    lines = re.findall(r"^\$ (waypost .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line for line in lines if not line.startswith("waypost dev")]


@pytest.fixture
def tmp_path(server_path: Path) -> Path:
    """A directory for server data: most tests here start their own servers."""
    return server_path


@pytest.fixture
def beside(servers: Servers, tmp_path: Path) -> Iterator[Path]:
    """A directory in which ``waypost dev`` runs."""
    command = [*WAYPOST, "dev", "--workers", "2", "--state-dir", ".waypost", "-o", "json"]
    with (tmp_path / "dev.log").open("wb") as log:
        dev = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            assert dev.stdout is not None
            assert dev.stdout.readline(), (tmp_path / "dev.log").read_text()
            yield tmp_path
        finally:
            dev.terminate()
            assert dev.wait(60) == 0
    assert not os.path.exists(tmp_path / ".waypost" / "endpoints.json")


def test_every_command_of_the_tutorial_works_in_turn(beside: Path) -> None:
    for line in typed():
        ran = subprocess.run(
            [*WAYPOST, *shlex.split(line)[1:]],
            cwd=beside,
            env=environment(),
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        for part, shown in SHOWN.items():
            if part in line:
                assert shown in ran.stdout, f"{line}\n{ran.stdout}{ran.stderr}"


def test_the_page_has_what_is_looked_for() -> None:
    for part in SHOWN:
        assert any(part in line for line in typed()), part
