"""A seeded asyncio event loop with virtual time, and operating system processes that run on it.

Nothing ever waits: when no callback is ready, time jumps to the next timer. Each callback belongs to the
process in whose context it was scheduled, so a process can be frozen (its callbacks wait while time goes on)
or killed (they never run; no cleanup either). Knows nothing of Kafka, Postgres or owners.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, TypeVarTuple

_Arguments = TypeVarTuple("_Arguments")


class Process:
    """One operating system process: alive, frozen or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.held: list[Handle] = []  # callbacks that wait for the process to go on; for ever if it is dead
        self.context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process | None] = ContextVar("process", default=None)
_MOST_STEPS = 400_000
# What happens outside all processes: in brokers, in the database, on the way between them.
OUTSIDE = Context()


def current_process() -> Process | None:
    """The process that the running code belongs to."""
    return _process.get()


class RunawayError(Exception):
    """A world does far more than it should: something goes round in circles."""


class Handle:
    """A scheduled callback."""

    __slots__ = ("args", "at", "callback", "context", "process")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
        process: Process | None,
        at: float,
    ) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context
        self.process = process
        self.at = at

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self.at


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs until a condition holds. ``errors`` collects what an asyncio loop would have logged."""

    def __init__(self, random: Random, shuffle: bool = False) -> None:
        self.errors: list[str] = []
        self.steps = 0
        self._random = random
        self._shuffle = shuffle
        self._now = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = count()

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = self._handle(callback, args, context, self._now)
        self._ready.append(handle)
        return handle  # type: ignore[return-value]

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = self._handle(callback, args, context, when)
        heappush(self._timers, (when, next(self._order), handle))
        return handle  # type: ignore[return-value]

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    # Running.

    def run(self, until: Callable[[], bool], deadline: float) -> bool:
        """Run until ``until()`` is true (looked at when time moves on); False at the deadline, or if nothing
        is left to do.
        """
        asyncio._set_running_loop(self)
        try:
            while True:
                self._run_ready()
                if until():
                    return True
                if not self._timers or self._timers[0][0] > deadline:
                    self._now = max(self._now, deadline)
                    return False
                self._advance()
        finally:
            asyncio._set_running_loop(None)

    def start(self, process: Process, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of ``process``."""
        return self.create_task(coroutine, context=process.context.copy())

    def resume(self, process: Process) -> None:
        """Let a frozen process go on: all that came meanwhile is there at once."""
        process.paused = False
        self._ready.extend(process.held)
        process.held.clear()

    def bury(self, processes: list[Process], tasks: list[asyncio.Task[Any]]) -> None:
        """After the end of the world: let the tasks of dead processes unwind, so that none is left over.

        Every port of a dead process refuses to do anything, so this changes nothing any more.
        """
        self._timers.clear()
        self.steps = 0
        for process in processes:
            process.dead = False
            self.resume(process)
        asyncio._set_running_loop(self)
        try:
            for _ in range(20):
                for task in tasks:
                    task.cancel()
                self._run_ready()
                self._timers.clear()
        finally:
            asyncio._set_running_loop(None)

    def _handle(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None, at: float
    ) -> Handle:
        if context is None:
            context = copy_context()
        return Handle(callback, args, context, context.get(_process), at)

    def _advance(self) -> None:
        timers, ready = self._timers, self._ready
        self._now = now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= now:
            handle = heappop(timers)[2]
            if handle.callback is not None:
                ready.append(handle)

    def _run_ready(self) -> None:
        ready = self._ready
        while ready:
            handle = self._pick() if self._shuffle and len(ready) > 1 else ready.popleft()
            callback, process = handle.callback, handle.process
            if callback is None:
                continue
            if process is not None and (process.paused or process.dead):
                process.held.append(handle)
                continue
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise RunawayError(f"more than {_MOST_STEPS} callbacks by {self._now:.3f} s")
            handle.context.run(callback, *handle.args)

    def _pick(self) -> Handle:
        """The first callback of a process chosen at random: within a process asyncio keeps the order."""
        ready = self._ready
        process = ready[self._random.randrange(len(ready))].process
        for index, handle in enumerate(ready):
            if handle.process is process:
                del ready[index]
                return handle
        raise AssertionError("the chosen process has a callback")
