"""The steps of deploy/Containerfile, each as it stands there, without a container engine: every stage gets a directory
for its root and a Python of its own, and what the last stage copies is run.

Packages come from the registry that pip uses here, checked against the locks' hashes.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from waypost import __version__

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/Containerfile"
# What a step may name by its absolute path.
PLACES = ("/opt/waypost", "/wheels", "/src", "/install")
KNOWN = {
    *("ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"),
    *("ENTRYPOINT", "CMD"),
}


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction and its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, arguments = line.partition(" ")
        yield name, " ".join(arguments.split())


class Build:
    """Stages by name, and the one at work."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stages: dict[str, Path] = {}
        self.root = directory
        self._work, self._path = "/", ""

    def follow(self, name: str, arguments: str) -> None:
        """Do one instruction; those that only describe the image do nothing here."""
        assert name in KNOWN, name
        match name:
            case "FROM":
                stage = arguments.partition(" AS ")[2] or "last"
                self.root = self._stages[stage] = self._directory / stage
                self._work, self._path = "/", ""
                subprocess.run([sys.executable, "-m", "venv", str(self.root / "usr")], check=True)
            case "WORKDIR":
                self._work = arguments
                self._inside(arguments).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(arguments.split())
            case "RUN":
                self.run(arguments)
            case "ENV":
                found = re.search(r"PATH=(/[^:]+):\$PATH", arguments)
                self._path = f"{self._inside(found[1])}:" if found else self._path

    def run(self, command: str) -> str:
        """A command with this stage's root and Python; what it printed."""
        for place in PLACES:
            command = re.sub(rf"(?<![\w./]){place}\b", str(self.root) + place, command)
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PYTHON", "WAYPOST_"))
            },
            "PATH": f"{self._path}{self.root / 'usr/bin'}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["sh", "-ec", command],
            check=False,
            cwd=self._inside(self._work),
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def _copy(self, words: list[str]) -> None:
        origin = ROOT
        if words[0].startswith("--from="):
            origin = self._stages[words.pop(0).removeprefix("--from=")]
        *sources, target = words
        place = self._inside(target)
        for source in sources:
            found = origin / source.removeprefix("/")
            if found.is_dir():
                shutil.copytree(
                    found,
                    place,
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )
            else:
                shutil.copy(found, place)

    def _inside(self, path: str) -> Path:
        return self.root / (path if path.startswith("/") else f"{self._work}/{path}").lstrip("/")


def test_the_steps_make_a_command_line_that_runs(tmp_path: Path) -> None:
    build = Build(tmp_path)
    for name, arguments in instructions():
        build.follow(name, arguments)
    waypost = build.root / "opt/waypost/bin/waypost"
    # pip wrote the address of the stage's Python, which an image has at the same place in the last stage.
    assert shlex.quote(str(tmp_path / "installed/opt/waypost/bin/python")) in waypost.read_text()
    assert build.run("waypost --version").strip() == __version__
    listed = build.run(
        f"{build.root}/usr/bin/python -m pip --python /opt/waypost list --format=freeze"
    ).split()
    locked = set(
        re.findall(r"^([A-Za-z0-9._-]+==[^\s;]+)", (ROOT / "deploy/worker.lock").read_text(), re.MULTILINE)
    )
    installed = {line.lower().replace("_", "-") for line in listed}
    assert f"waypost=={__version__}" in installed
    assert installed - {f"waypost=={__version__}"} <= {line.lower().replace("_", "-") for line in locked}
    build.run(
        "python -c 'import obstore, waypost_worker.runtime.worker, opentelemetry.exporter.otlp.proto.http'"
    )
