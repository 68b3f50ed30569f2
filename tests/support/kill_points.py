"""Commands that are killed with SIGKILL while they run.

:func:`run_until_killed` kills a command at a place inside it, such as before it removes its third file. Python's audit
events name such places (https://docs.python.org/3/library/audit_events.html), so no part of the command is replaced.
The event ``call`` is the call of a function by its qualified name. :func:`until_blocked` waits until a command waits
for a lock that the test holds.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.cli import CommandLine, Started, environment
from tests.support.timeouts import PATIENCE


def run_until_killed(line: CommandLine, event: str, text: str, count: int, *arguments: str) -> None:
    """Run a command that is killed before the audit event ``event`` that is the ``count``-th about ``text``.

    AssertionError if it ends in another way.
    """
    command = [sys.executable, __file__, event, text, str(count), *arguments]
    # This file imports its neighbours, wherever the tests were started from.
    found = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    started = Started(command, line.directory, {**environment(line.settings), "PYTHONPATH": found})
    try:
        ended = started.wait()
        assert ended.code == -signal.SIGKILL, ended
    finally:
        started.end()


async def until_blocked(connection: Any, seconds: float = PATIENCE) -> None:
    """Wait until somebody waits for a lock that this connection holds."""
    blocked = "not granted and pg_backend_pid() = any (pg_blocking_pids(pid))"
    async with asyncio.timeout(seconds):
        while True:
            if await connection.fetchval(f"select count(*) from pg_locks where {blocked}"):
                return
            await asyncio.sleep(0.02)


def _main() -> None:
    wanted, text, left, *arguments = sys.argv[1:]
    count = int(left)

    def look(event: str, about: tuple[Any, ...]) -> None:
        nonlocal count
        exactly = wanted == "call"
        if event == wanted and any(text == each if exactly else text in str(each) for each in about):
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    from waypost_worker.cli.app import main

    entered: set[FrameType] = set()

    def look_at_call(frame: FrameType, event: str, _: Any) -> None:
        # Python reports a coroutine that resumes as another call of the same frame.
        if event == "call" and frame.f_code.co_qualname == text and frame not in entered:
            entered.add(frame)
            look(event, (text,))

    if wanted == "call":
        sys.setprofile(look_at_call)
    sys.addaudithook(look)
    main(arguments)


if __name__ == "__main__":
    _main()
