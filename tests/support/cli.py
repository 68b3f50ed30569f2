"""The command line as a test uses it: what it is given, what it printed, how it ended.

:meth:`CommandLine.run` runs a command inside this process, which takes a tenth of the time; :meth:`CommandLine.start`
starts a real one.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.logging_state import logs_as_before

from waypost_worker.cli.app import main

MODULE = ("-m", "waypost_worker.cli")
WAYPOST = (sys.executable, *MODULE)


def environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of Waypost's, and with these; an 80-column terminal."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("WAYPOST_") or name == "WAYPOST_CACHE_DIR"
    }
    return {**kept, "COLUMNS": "80", **(settings or {})}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> str:
        """The one line that a failure says."""
        (line,) = self.err.splitlines()
        assert line.startswith("waypost: "), line
        return line.removeprefix("waypost: ")


@dataclass(frozen=True)
class CommandLine:
    """Runs commands in a directory, with settings as environment variables."""

    directory: Path
    settings: Mapping[str, str]

    def run(self, *arguments: str, stdin: str = "") -> Outcome:
        """Run a command to its end."""
        out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with (
            tempfile.TemporaryFile("w+") as given,
            chdir(self.directory),
            mock.patch.dict(os.environ, environment(self.settings), clear=True),
            mock.patch.object(sys, "stdin", given),
            redirect_stdout(out),
            redirect_stderr(err),
            logs_as_before(),
        ):
            given.write(stdin)
            given.seek(0)
            code: Any = None
            try:
                main(list(arguments))
            except SystemExit as ended:
                code = ended.code
        out.flush()
        return Outcome(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]

    def start(self, *arguments: str, python: str = sys.executable) -> "Started":
        """Start a command that goes on."""
        return Started([python, *MODULE, *arguments], self.directory, environment(self.settings))


class Started:
    """A command that is running; what it says is collected and can be waited for."""

    def __init__(self, command: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=dict(env),
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._said = threading.Condition()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def until(self, text: str, seconds: float = 60) -> str:
        """Wait for a line with ``text`` on either stream; the line."""
        with self._said:
            self._said.wait_for(lambda: self._line_with(text) is not None or not self._open, seconds)
            line = self._line_with(text)
            assert line is not None, f"it never said {text!r}, but {''.join(self.out + self.err)}"
        return line

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> Outcome:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> Outcome:
        """Wait for the end."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return Outcome(code, "".join(self.out), "".join(self.err))

    def end(self) -> None:
        """Make sure that it does not outlive the test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _collect(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._said:
                lines.append(line)
                self._said.notify_all()
        with self._said:
            self._open -= 1
            self._said.notify_all()

    def _line_with(self, text: str) -> str | None:
        return next((line for line in [*self.out, *self.err] if text in line), None)
