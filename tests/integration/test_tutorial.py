"""Both tutorials, typed in order while servers run. Each command does and prints what the pages say.

With TUTORIAL_WRITE set, the pages get what was printed, instead of being compared with it: `make tutorial`.
"""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from tests.support.cli import WAYPOST, environment
from tests.support.deployment import deployment
from tests.support.timeouts import PATIENCE

from waypost.endpoints import Endpoints
from waypost_worker.devserver import Servers

DOCS: Final = Path(__file__).parents[2] / "docs"
# What is never the same twice, as it is written in outputs.
_VARYING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[\d,.]+( ms| s|/s| a second| per second)\b"), "DURATION"),
    (re.compile(r"[-─━ ]{2,}"), " "),  # columns are as wide as what is in them
)


# How far a command has come, which depends on how fast it is.
_PROGRESS: Final = re.compile(r"^(verify|replay): .* left$\n", re.MULTILINE)
WRITE: Final = bool(os.environ.get("TUTORIAL_WRITE"))


class Block(NamedTuple):
    """What is to be typed, its place on the page, and what it prints; None if the page doesn't say."""

    place: int
    typed: str
    printed: str | None


def _pattern(kind: str) -> re.Pattern[str]:
    return re.compile(
        rf"^```{kind}\n(?P<typed>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?", re.DOTALL | re.MULTILINE
    )


def blocks(page: str, kind: str) -> list[Block]:
    """The blocks of one kind, each with the output right below it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = _pattern(kind).finditer(text)
    return [Block(place, one["typed"], one["printed"]) for place, one in enumerate(found)]


def write(page: str, kind: str, printed: dict[int, str]) -> None:
    """Put what was printed into the page, where it has an output."""
    places = count()

    def renewed(found: re.Match[str]) -> str:
        place = next(places)
        if found["printed"] is None or place not in printed:
            return found[0]
        lines = [line.rstrip() for line in printed[place].strip().splitlines()]
        return f"```{kind}\n{found['typed']}```\n\n```text\n" + "\n".join(lines) + "\n```\n"

    path = DOCS / page
    path.write_text(_pattern(kind).sub(renewed, path.read_text(encoding="utf-8")), encoding="utf-8")


def alike(printed: str) -> list[str]:
    """The lines of an output, without what varies."""
    for pattern, name in _VARYING:
        printed = pattern.sub(name, printed)
    return [line.strip() for line in printed.strip().splitlines()]


def typed() -> list[Block]:
    """The blocks of the first tutorial but for those that install and start."""
    return [block for block in blocks("tutorial.md", "sh") if block.typed.startswith("waypost ")]


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


def test_every_command_of_the_tutorial_prints_what_the_page_says(beside: Path) -> None:
    all_printed = {}
    for block in typed():
        printed = ""
        for line in block.typed.splitlines():
            ran = subprocess.run(
                [*WAYPOST, *shlex.split(line)[1:]],
                cwd=beside,
                env=environment(),
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
            )
            assert ran.returncode == 0, f"{line}\n{ran.stdout}"
            printed += ran.stdout
        all_printed[block.place] = _PROGRESS.sub("", printed)
    if WRITE:
        write("tutorial.md", "sh", all_printed)
    for block in typed():
        if block.printed is not None:
            assert alike(all_printed[block.place]) == alike(block.printed), block.typed


def test_the_tutorial_shows_what_its_commands_print() -> None:
    assert len([block for block in typed() if block.printed]) >= 10
    assert len([block for block in blocks("tutorial-python.md", "python") if block.printed]) >= 7


# Runs the blocks of a page like the interpreter that the page starts: one namespace, `await` at the top level.
_RUNNER: Final = """
import ast, asyncio, contextlib, inspect, io, json, sys

async def main():
    names, printed = {"__name__": "__console__"}, []
    for block in json.load(sys.stdin):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = compile(block, "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            coroutine = eval(code, names)
            if inspect.iscoroutine(coroutine):
                await coroutine
        printed.append(out.getvalue())
    print(json.dumps(printed))

asyncio.run(main())
"""


async def test_the_tutorial_in_python_prints_what_the_page_says(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    (tmp_path / ".waypost").mkdir()
    Endpoints(servers.kafka.bootstrap_servers, database).write(tmp_path / ".waypost")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("WAYPOST_")}
    settings["WAYPOST_TOPIC_PREFIX"] = topic_prefix  # several tests share the servers
    page = blocks("tutorial-python.md", "python")
    async with deployment(servers.endpoints, database, topic_prefix) as here:
        here.own()
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error::DeprecationWarning", "-c", _RUNNER),
            cwd=tmp_path,
            env=settings,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        blocks_typed = json.dumps([block.typed for block in page]).encode()
        async with asyncio.timeout(PATIENCE):
            out, err = await program.communicate(blocks_typed)
    assert program.returncode == 0, err.decode()
    if WRITE:
        write("tutorial-python.md", "python", dict(enumerate(json.loads(out))))
    for block, printed in zip(blocks("tutorial-python.md", "python"), json.loads(out), strict=True):
        assert printed.strip() == (block.printed or "").strip(), block.typed
