"""Worker processes as a scenario handles them: start, freeze, kill, drain, count what they hold."""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SESSION_TIMEOUT = 1.5
REQUEST_TIMEOUT = 3
TOP = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """One ``python -m tests.faults.worker`` and its log."""

    def __init__(
        self, name: str, directory: Path, settings: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._note = directory / f"{name}.note"
        self._counts = directory / f"{name}.counts"
        self._arguments = (*arguments, "--note", str(self._note), "--counts", str(self._counts))
        self._settings = {
            **{key: value for key, value in os.environ.items() if not key.startswith("WAYPOST_")},
            "WAYPOST_SESSION_TIMEOUT": str(SESSION_TIMEOUT),
            "WAYPOST_REQUEST_TIMEOUT": str(REQUEST_TIMEOUT),
            "WAYPOST_LOG_FORMAT": "json",
            "WAYPOST_HTTP_PORT": "0",
            **settings,
        }
        self.process: asyncio.subprocess.Process | None = None
        self.frozen = False

    async def start(self) -> "WorkerProcess":
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.worker", *self._arguments),
                env=self._settings,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=TOP,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def caught(self) -> bool:
        """Whether it came to its failpoint, and stands still or is dead now."""
        if not self._note.exists():
            return False
        return not self.alive or self.state in "TZX"

    @property
    def state(self) -> str:
        """The state letter of the kernel, such as T for stopped; X once it is gone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "X"

    @property
    def resident_bytes(self) -> int:
        """Resident memory."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def says(self, word: str) -> int:
        """How often its log has an event of this name."""
        return self.log.read_text(errors="replace").count(f'"{word}"')

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name in its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if f'"{name}"' in line]

    def refusals(self) -> dict[int, str]:
        """The last refusal of each partition."""
        return {event["partition"]: event["reason"] for event in self.events("partition_refused")}

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of what its HTTP port answers."""
        (listening,) = self.events("http_listening")
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{listening['port']}{path}")

    def freeze(self) -> None:
        self.frozen = True
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        os.kill(self.pid, signal.SIGCONT)

    async def end(self, number: signal.Signals, seconds: float = 40) -> int:
        """Send a signal, unless it has ended, and wait for the end; the exit code."""
        assert self.process is not None
        if self.alive:
            self.process.send_signal(number)
        return await self.ended(seconds)

    async def ended(self, seconds: float = 40) -> int:
        """Wait for its end; the exit code."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), seconds)

    async def counts(self) -> dict[str, int]:
        """Tasks, clients and files that it holds now (see tests.faults.worker)."""
        self._counts.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGWINCH)
        async with asyncio.timeout(10):
            while not self._counts.exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        found: dict[str, int] = json.loads(self._counts.read_text())
        return found


def _get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failed:
        return failed.code, failed.read().decode()
