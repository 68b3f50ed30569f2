"""A supervised server process, seen from its owner.

Owns the hand-over to supervisor.py and the signals to the server. Must not know what the server is.
Synchronous, and bound to no event loop and to no thread.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from waypost_worker.devserver import supervisor
from waypost_worker.devserver.errors import DevServerError, log_tail

StopSteps = Sequence[tuple[signal.Signals, float]]
"""Signals to send in turn, each with the seconds to wait before the next; SIGKILL comes last."""


class SupervisedProcess:
    """One server process and its supervisor; both end when the process that made this object ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        stop: StopSteps,
        death_signal: signal.Signals = signal.SIGKILL,
        environment: Mapping[str, str] | None = None,
        user: tuple[int, int] | None = None,
        lock_fd: int | None = None,
    ) -> None:
        """Start it.

        Args:
            argv: the program's absolute path and its arguments.
            log: file that standard output and error are appended to.
            stop: how `stop()`, or the owner's death, ends it.
            death_signal: the signal that it receives when its supervisor is killed.
            environment: its whole environment, apart from PATH and LANG.
            user: (uid, gid) to run as; the caller must be root.
            lock_fd: a descriptor that it inherits, to hold a lock as long as it lives.

        Raises:
            DevServerError: the supervisor could not start.
        """
        self._argv = list(argv)
        self._log = log
        spec = {
            "argv": self._argv,
            "environment": {"PATH": os.defpath, "LANG": "C.UTF-8", **(environment or {})},
            "owner": os.getpid(),
            "stop": [[int(number), patience] for number, patience in stop],
            "death_signal": int(death_signal),
            "user": user,
        }
        # Logs quote configuration and statements, so they are for their owner alone, like everything that the
        # server writes: see the supervisor's umask.
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output:
            self._supervisor = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [sys.executable, "-I", "-S", supervisor.__file__, json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                # Its own session: Ctrl-C reaches the owner alone, and the owner decides.
                start_new_session=True,
                pass_fds=() if lock_fd is None else (lock_fd,),
            )
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as answer:
            line = answer.readline()
        if not line:
            self._supervisor.wait()
            raise DevServerError(f"could not start {self._argv[0]}. {log_tail(log)}")
        self.pid = int(line)

    @property
    def running(self) -> bool:
        """Return whether any process of the server is alive."""
        return self._supervisor.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code once it has ended: 128 + n where signal n ended it."""
        return self._supervisor.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server process itself; without effect once it has ended."""
        if self.running:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def wait(self, timeout: float | None = None) -> int:
        """Wait until every process of the server has ended; its exit code.

        Raises:
            DevServerError: it is still there after `timeout` seconds.
        """
        try:
            return self._supervisor.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise DevServerError(
                f"process {self.pid} ({self._argv[0]}) did not end within {timeout:g} s; it still runs. "
                f"{log_tail(self._log)}"
            ) from error

    def stop(self) -> int:
        """Stop it by its `stop` steps and wait; its exit code. It may have ended before."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        return self._supervisor.wait()
