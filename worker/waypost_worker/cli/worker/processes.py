"""Worker processes of one parent: started, watched, replaced when killed, and stopped with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from waypost_worker.cli.support.output import CommandError, note

_STOP_SECONDS: Final = 25.0
_POLL_SECONDS: Final = 0.1


class WorkerProcesses:
    """Workers of one deployment. A worker that takes longer than ``stop_seconds`` to stop is killed."""

    def __init__(self, stop_seconds: float = _STOP_SECONDS) -> None:
        self._stop_seconds = stop_seconds
        self._environments: list[dict[str, str]] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, settings: Sequence[Mapping[str, str]]) -> None:
        """Start one for each of ``settings``, environment variables besides one's own."""
        for index, own in enumerate(settings):
            self._environments.append({**os.environ, **own})
            self._children.append(self._start(index))

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [child.pid for child in self._children]

    def look_after(self) -> None:
        """Replace those that somebody killed; CommandError if one gave up by itself."""
        for index, child in enumerate(self._children):
            code = child.poll()
            if code is None:
                continue
            if code >= 0:
                raise CommandError(f"worker {child.pid} ended with exit code {code}; its log says why")
            name = signal.Signals(-code).name
            replacement = self._children[index] = self._start(index)
            note(f"worker {child.pid} was killed by {name}; worker {replacement.pid} takes its place")

    def stop(self) -> bool:
        """Let them finish the work in progress, and wait. Return whether all did."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + self._stop_seconds
        for child in self._children:
            try:
                child.wait(max(_POLL_SECONDS, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                note(f"worker {child.pid} did not end in time and is killed; nothing is lost")
                child.kill()
                child.wait()
        # One that SIGTERM itself ended had not begun: it has a handler before it has anything else.
        return all(child.returncode in (0, -signal.SIGTERM) for child in self._children)

    def signal(self, number: int) -> None:
        """Send all of them a signal."""
        for child in self._children:
            child.send_signal(number)

    def kill(self) -> None:
        """Kill them."""
        for child in self._children:
            child.kill()

    def _start(self, index: int) -> "subprocess.Popen[bytes]":
        # The parent's death must end a worker: its standard input closes then, and worker_child waits for that. A
        # session of its own means that Ctrl-C reaches only the parent, and the parent decides.
        return subprocess.Popen(
            [sys.executable, "-m", "waypost_worker.cli.worker.child"],
            env=self._environments[index],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
