"""Processes as a test sees them: who descends from whom, and when they are gone."""

import gc
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.support.timeouts import PATIENCE


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


class Freezable(Protocol):
    """A server that can be suspended."""

    @property
    def pid(self) -> int:
        """Its first process."""
        ...

    def suspend(self) -> None:
        """SIGSTOP to all of it."""
        ...


def freeze(server: Freezable) -> None:
    """Suspend a server and wait until all of it stands still: until then it may answer on a busy machine."""
    server.suspend()
    wait_until_still([server.pid, *descendants(server.pid)])


def wait_until_still(pids: list[int]) -> None:
    """Wait until each thread of these processes, which were sent SIGSTOP, has stopped."""
    wait_until(lambda: all(_stands_still(pid) for pid in pids), PATIENCE)


def _stands_still(pid: int) -> bool:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return all((task / "stat").read_text().rpartition(")")[2].split()[0] in "TZX" for task in tasks)
    except (FileNotFoundError, ProcessLookupError):
        return not Path(f"/proc/{pid}").exists()  # a thread has ended meanwhile, or the process


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


def begin() -> None:
    """Signals as a new process has them, and no look at what was inherited.

    A fork takes its parent's handlers along, and one in Python runs when the interpreter comes to it. ``Pool`` ends its
    processes with SIGTERM while it keeps the lock of their queue: one that is about to wait for the lock by then never
    comes to its handler, and ``Pool`` waits for it. Without a handler the kernel ends it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
