"""Run pip with a lock file and show how far it is: ``python deploy/pip_progress.py COMMAND ... -r LOCK``.

Left alone, pip either says nothing for a minute or prints several lines for each package. Its output is kept here and
printed only if it fails. Run by the Makefile before anything is installed, so the standard library must do.
"""

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

_STARTED: Final = re.compile(r"\s*(?:Collecting|Requirement already satisfied:|Ignoring) ([A-Za-z0-9._-]+)")
_UNPACKING: Final = re.compile(r"Installing collected packages")
_INTERVAL: Final = 5.0  # seconds between two lines where lines can't be overwritten, such as in a CI log


def locked(lock: Path) -> int:
    """Return the number of packages that a lock file pins."""
    return len(re.findall(r"^[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?==", lock.read_text(), re.MULTILINE))


class Display:
    """One line that is overwritten in a terminal, or a new line every few seconds elsewhere."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._total = total
        self._done = 0
        self._doing = "asking for the list of packages"
        self._began = time.monotonic()
        self._shown = self._began

    def feed(self, line: str) -> None:
        """Take in one line of pip's output."""
        if started := _STARTED.match(line):
            self._done += 1
            self._doing = started[1].partition("==")[0]
        elif _UNPACKING.match(line):
            self._done, self._doing = self._total, "unpacking"

    def refresh(self) -> None:
        """Show the current state, unless it was just shown."""
        now = time.monotonic()
        if self._terminal:
            self._stream.write(f"\r\033[K{self._text(now)}")
        elif now - self._shown >= _INTERVAL:
            self._shown = now
            self._stream.write(self._text(now) + "\n")
        self._stream.flush()

    def finish(self, word: str) -> None:
        """Leave a last line behind."""
        start = "\r\033[K" if self._terminal else ""
        self._stream.write(f"{start}      {word} after {time.monotonic() - self._began:.0f} s\n")
        self._stream.flush()

    def _text(self, now: float) -> str:
        return f"      {self._done} of {self._total}: {self._doing} ({now - self._began:.0f} s)"


def lines_of(process: "subprocess.Popen[str]") -> Iterator[str | None]:
    """Yield the lines of a process, and None whenever it was silent for a second."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            yield None
            continue
        if line is None:
            reader.join()
            return
        yield line


def main(command: Sequence[str], stream: TextIO = sys.stdout) -> int:
    """Run the command; return its exit code."""
    display = Display(stream, locked(Path(command[command.index("-r") + 1])))
    kept: list[str] = []
    with subprocess.Popen(  # noqa: S603 - the Makefile says what
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in lines_of(process):
            if line is not None:
                kept.append(line)
                display.feed(line)
            display.refresh()
    display.finish("failed" if process.returncode else "done")
    if process.returncode:
        stream.write("".join(kept))
    return process.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
