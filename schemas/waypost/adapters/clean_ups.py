"""Clean-ups of sessions in the background: one at a time for a session, and none ever fails a call.

Each adapter decides what is removed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("waypost")


class CleanUps:
    """The clean-ups under way, by session."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks of the clean-ups under way."""
        return list(self._tasks.values())

    def begin(self, session_id: str, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a clean-up of a session in the background, unless one is under way. Its failure is logged."""
        if session_id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._run(session_id, clean_up))
            self._tasks[session_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(session_id))

    async def ended(self, session_id: str) -> bool:
        """Wait for a clean-up in the background, and tell whether there was one."""
        if (task := self._tasks.get(session_id)) is None:
            return False
        await asyncio.wait({task})
        return True

    async def _run(self, session_id: str, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await clean_up()
        except Exception as error:
            log.warning(
                "Old records of %r could not be removed now. Nothing else was, and it is tried again later: %s",
                session_id,
                error,
            )
