"""The worker processes of a dev server: started, watched, replaced when killed, and stopped with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Final

from waypost_worker.cli.output import CommandError, note

_STOP_SECONDS: Final = 25.0
_POLL_SECONDS: Final = 0.1


class DevWorkers:
    """Workers with the same settings."""

    def __init__(self) -> None:
        self._environment: dict[str, str] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, settings: Mapping[str, str]) -> None:
        """Start so many, with these environment variables besides one's own."""
        self._environment = {**os.environ, **settings}
        for _ in range(count):
            self._children.append(self._start())

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
            replacement = self._children[index] = self._start()
            note(f"worker {child.pid} was killed by {name}; worker {replacement.pid} takes its place")

    def stop(self) -> None:
        """Let them finish the work in hand, and wait; what takes too long is killed."""
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            try:
                child.wait(max(_POLL_SECONDS, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                note(f"worker {child.pid} did not end in time and is killed; nothing is lost by that")
                child.kill()
                child.wait()

    def kill(self) -> None:
        """End them at once."""
        for child in self._children:
            child.kill()

    def _start(self) -> "subprocess.Popen[bytes]":
        # The parent's death must end a worker: its standard input closes then, and worker_child waits for that.
        # A session of its own: Ctrl-C reaches the parent alone, and the parent decides.
        return subprocess.Popen(
            [sys.executable, "-m", "waypost_worker.cli.worker_child"],
            env=self._environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
