"""Child processes of the benchmark and the few lines they exchange with it.

A child is ``python -m tests.tools.bench.NAME JOB``, JOB in JSON. It prints one JSON object a line; a line on its
standard input is a word of its parent, and the end of standard input means that it is to end.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

_LINE_BYTES = 64 * 1024 * 1024
_PATIENCE = 20.0


class ChildFailedError(RuntimeError):
    """A child process ended before it said what was waited for."""


class Child:
    """A child process, from the parent's side. Leaving the context ends it.

    ``program`` runs in place of this Python's ``-m module JOB``.
    """

    def __init__(
        self,
        module: str,
        job: dict[str, Any],
        *,
        environment: dict[str, str] | None = None,
        program: Sequence[str] | None = None,
    ) -> None:
        python = [sys.executable, "-m", module, *([json.dumps(job)] if job else [])]
        self._program = list(program) if program is not None else python
        self._environment = environment
        self._name = module
        self.exit_code: int | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=self._environment,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        try:
            self.exit_code = await asyncio.wait_for(process.wait(), _PATIENCE)
        except (TimeoutError, asyncio.CancelledError):
            with suppress(ProcessLookupError):
                process.kill()
            self.exit_code = await process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.returncode is None

    async def answer(self) -> dict[str, Any]:
        """The next object that it prints. ChildFailedError if it ends instead."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ChildFailedError(f"{self._name} ended with exit code {await self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tell(self, word: str) -> None:
        """Send it a word."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")


class WorkerChild(Child):
    """A real worker, or one for each core; they drain when it is left."""

    def __init__(self, environment: dict[str, str], log: Path, *, all_cores: bool = False) -> None:
        cores = [sys.executable, "-m", "waypost_worker.cli", "worker", "--processes", "auto"]
        super().__init__(
            "waypost_worker.cli.worker.child",
            {},
            environment=environment,
            program=cores if all_cores else None,
        )
        self._log = log
        self._all_cores = all_cores

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A worker ends with its parent, and so with its standard input; the parent of several wants a word.
        if self._all_cores and self.running:
            self._process.terminate()
        await super().__aexit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._program,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        return self


# The child's side.

_GRACE = 10.0
_words: asyncio.Queue[str] = asyncio.Queue()


def say(**answer: Any) -> None:
    """Print one object for the parent."""
    print(json.dumps(answer), flush=True)


async def word() -> str:
    """The parent's next word; empty once it wants an end."""
    return await _words.get()


def run_child(
    main: Callable[[dict[str, Any]], Awaitable[None]],
    run: Callable[[Coroutine[Any, Any, None]], None] = uvloop.run,
) -> None:
    """Run a child's main function with its job, by default on the event loop that the service uses."""

    async def start() -> None:
        threading.Thread(target=_listen, args=(asyncio.get_running_loop(),), daemon=True).start()
        await main(json.loads(sys.argv[1]))

    run(start())


def _listen(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # the loop has ended
        for line in sys.stdin:
            loop.call_soon_threadsafe(_words.put_nowait, line.strip())
        loop.call_soon_threadsafe(_words.put_nowait, "")
    # The parent wants an end, or is gone together with the servers; some clients would then retry indefinitely.
    time.sleep(_GRACE)
    os._exit(1)
