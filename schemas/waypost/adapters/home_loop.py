"""The event loop of a backend, and calls to it from any thread and from any other loop.

Knows neither Kafka nor Postgres.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from waypost.errors import PublisherClosedError
from waypost.publisher.loops import await_on

_LOOK_SECONDS: Final = 1.0
_NOT_RUNNING: Final = (
    "the event loop on which this backend was started is not running, so nothing was read or accepted: use 'with "
    "Backend(...)', which runs one in its own thread, or the async methods within 'async with Backend(...)'"
)
_STOPPED: Final = (
    "the event loop on which this backend was started stopped before the call was done, so a write may be stored or "
    "not: keep that loop running, or use 'with Backend(...)', which runs one in its own thread"
)
_T = TypeVar("_T")


class HomeLoop:
    """The event loop on which a backend was started: its caller's, or one in a separate thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    @property
    def is_set(self) -> bool:
        """Return whether the backend was started on a loop and not closed."""
        return self._loop is not None

    def adopt(self) -> None:
        """Make the running event loop this one."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    def leave(self) -> None:
        """Take no more calls."""
        self._loop = None

    def start_thread(self, first: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run a new event loop in a separate thread, and a first call on it. If that fails, neither stays."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="waypost-adapter", daemon=True)
        thread.start()
        self._loop, self._thread, self._pid = loop, thread, os.getpid()
        try:
            return self.run(first())
        except BaseException:
            self._end_thread(loop, thread)
            raise

    def stop_thread(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a last call, and stop the thread. Do nothing if there is none, as in a child process."""
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and os.getpid() == self._pid:
            self.run(last())
            self._end_thread(loop, thread)

    def _end_thread(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        self._loop = self._thread = None

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on this event loop, and wait for it.

        Raises:
            RuntimeError: This is its own thread.
            PublisherClosedError: It does not run, or belongs to the parent process.
        """
        loop = self._living(call)
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            call.close()
            raise RuntimeError(
                "a synchronous method was called on the event loop of its own backend, which it would stop: use the "
                "async method (ainvoke, aget_tuple, …), or call it from another thread"
            )
        if not loop.is_running():
            call.close()
            raise PublisherClosedError(_NOT_RUNNING)
        waited = asyncio.run_coroutine_threadsafe(call, loop)
        while True:
            try:
                return waited.result(_LOOK_SECONDS)
            except TimeoutError:
                if waited.done():
                    return waited.result()  # the call's own time-out
                if not loop.is_running():
                    waited.cancel()
                    raise PublisherClosedError(_STOPPED) from None

    async def join(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Await a coroutine on this event loop, from any event loop."""
        loop = self._living(call)
        if asyncio.get_running_loop() is loop:
            return await call
        if not loop.is_running():
            call.close()
            raise PublisherClosedError(_NOT_RUNNING)
        return await await_on(loop, call, _STOPPED)

    def _living(self, call: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        if self._loop is not None and os.getpid() != self._pid:
            call.close()
            raise PublisherClosedError(
                "this backend was started before a fork and belongs to the parent process, so nothing was "
                "read or accepted: create one in this process"
            )
        if self._loop is None or self._loop.is_closed():
            call.close()
            raise PublisherClosedError(
                "the backend is closed or was not started, so nothing was read or accepted: use "
                "'async with Backend(...)' or 'with Backend(...)'"
            )
        return self._loop
