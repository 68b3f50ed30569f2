"""Processes as a test sees them: who descends from whom, and when they are gone."""

import os
import select
import time
from collections.abc import Callable
from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Process ids of all living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    pending = [pid]
    while pending:
        for child in children.get(pending.pop(), []):
            found.append(child)
            pending.append(child)
    return found


def program_of(pid: int) -> str:
    """Name of the program that a process runs, such as java; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def arguments_of(pid: int) -> list[str]:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until this holds; AssertionError once the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not hold within {seconds:g} s"
        select.select([], [], [], 0.02)


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    """Wait until these processes have ended; those that still run when the time is up."""
    deadline = time.monotonic() + seconds
    return [pid for pid in pids if not _ends_before(pid, deadline)]


def _ends_before(pid: int, deadline: float) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Readable once the process has ended, also before its parent has collected it.
        return bool(select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0])
    finally:
        os.close(fd)
