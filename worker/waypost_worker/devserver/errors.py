"""The one error that the embedded servers raise on purpose."""

from __future__ import annotations

from collections import deque
from pathlib import Path


class DevServerError(RuntimeError):
    """An embedded server could not be prepared, started or reached; the message says what to do."""


def log_tail(path: Path, lines: int = 25) -> str:
    """The last lines of a server's log, indented for an error message."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            tail = deque(file, maxlen=lines)
    except FileNotFoundError:
        return f"(no log at {path})"
    body = "".join(f"    {line}" for line in tail).rstrip() or "    (empty)"
    return f"last lines of {path}:\n{body}"
