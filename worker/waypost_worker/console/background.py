"""The console in the background: in a thread with its own event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from waypost_worker.config.settings import Settings
from waypost_worker.console.serve import console

_STOP_SECONDS: Final = 5.0


class BackgroundConsole:
    """A console that runs until it is stopped. It ends with the process."""

    def __init__(self) -> None:
        self._link: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self, settings: Settings, tell: Callable[[str], None]) -> str:
        """Start it, and return the address to open. Raise what ``console`` raises."""
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(settings, tell)), name="console", daemon=True
        )
        self._thread.start()
        return self._link.result()

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        if self._loop is None or self._stop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_SECONDS)

    async def _run(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with console(settings, tell) as link:
                self._link.set_result(link)
                await self._stop.wait()
        except Exception as error:
            if self._link.done():
                raise
            self._loop = None
            self._link.set_exception(error)
