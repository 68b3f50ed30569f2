"""The way between a process and a server: time that passes, and all that can go wrong with one request.

A request takes effect when it lands at the server, whatever became of its sender meanwhile. The sender learns
of it when the reply arrives, or learns nothing: an error may come before the effect, after it, or instead of
it. Knows nothing of what requests mean.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from tests.simulation.loop import OUTSIDE, Process, SimulatedLoop, current_process

from waypost_worker.partition.ports import UnavailableError

T = TypeVar("T")
STAGES = ("sent", "landing", "answered")


@dataclass(slots=True)
class Weather:
    """How likely each mishap of a request is, and how long things take (seconds)."""

    refused: float = 0.0  # an error at once; it never landed
    lost: float = 0.0  # never landed, and nothing comes back
    unheard: float = 0.0  # took effect, the reply was lost
    reset: float = 0.0  # took effect, and the connection broke at once
    late: float = 0.0  # nothing comes back, and it lands after its sender gave up
    twice: float = 0.0  # a client's retry: it lands a second time
    torn: float = 0.0  # only a part takes effect, of requests that have parts, and the reply is lost
    slow: float = 0.0  # takes long, and all is well
    quick: float = 0.002  # the usual longest time one way
    longest: float = 0.5  # the longest time of a slow one, one way

    @property
    def fair(self) -> bool:
        chances = (self.refused, self.lost, self.unheard, self.reset, self.late, self.twice, self.torn)
        return not any(chances)


class Server:
    """One server as seen from the network. ``tell`` writes the trace, where there is one."""

    def __init__(self, name: str, loop: SimulatedLoop, random: Random, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.weather = Weather()
        self.down = False
        self.generation = 0  # rises when all connections break: what is under way then never lands
        self.latest = timeout  # how long after its sending a late request may land
        self.loop = loop
        self.random = random
        self.tell: Callable[[str], None] | None = None
        self._ambush: tuple[int, str, Callable[[Process | None], None]] | None = None

    def lie_in_wait(self, requests: int, stage: str, strike: Callable[[Process | None], None]) -> None:
        """Call ``strike`` with the sender of the n-th request from now (fetches do not count), at a stage."""
        self._ambush = (requests, stage, strike)

    def break_connections(self) -> None:
        """Nothing that is under way lands any more."""
        self.generation += 1

    async def call(self, what: str, effect: Callable[[], T], part: Callable[[], T] | None = None) -> T:
        """Send a request whose effect is ``effect``; UnavailableError where no answer came.

        ``part`` is the effect of a request of which only a part arrives.
        """
        process = current_process()
        if process is not None and process.dead:
            raise asyncio.CancelledError
        loop, weather, draw = self.loop, self.weather, self.random.random
        future: asyncio.Future[T] = loop.create_future()
        now = loop.time()
        longest = weather.longest if weather.slow and draw() < weather.slow else weather.quick
        there = now + longest * draw()
        back = there + longest * draw()
        tell = self.tell
        if tell:
            tell(f"{_name(process)} → {self.name}: {what}")
        if self._ambush is not None and not what.startswith("fetch"):
            self._creep(process, there, back)
        if self.down:
            self._fail(future, now + 0.01, what, "cannot be reached")
        elif weather.fair:
            loop.call_at(there, self._land, future, effect, back, what, self.generation, context=OUTSIDE)
        else:
            self._draw(future, effect, part, there, back, what)
        return await future

    def _creep(self, process: Process | None, there: float, back: float) -> None:
        assert self._ambush is not None
        left, stage, strike = self._ambush
        if left > 1:
            self._ambush = (left - 1, stage, strike)
            return
        self._ambush = None
        if stage == "sent":
            self.loop.call_soon(strike, process, context=OUTSIDE)
        else:
            self.loop.call_at(there if stage == "landing" else back, strike, process, context=OUTSIDE)

    def _draw(
        self,
        future: asyncio.Future[Any],
        effect: Callable[[], Any],
        part: Callable[[], Any] | None,
        there: float,
        back: float,
        what: str,
    ) -> None:
        loop, weather = self.loop, self.weather
        fate = self.random.random()
        given_up = loop.time() + self.timeout
        generation = self.generation
        if (fate := fate - weather.refused) < 0:
            self._fail(future, there, what, "refused the connection")
        elif (fate := fate - weather.lost) < 0:
            self._fail(future, given_up, what, "did not answer")
        elif (fate := fate - weather.unheard) < 0:
            loop.call_at(there, self._land, None, effect, 0.0, what, generation, context=OUTSIDE)
            self._fail(future, given_up, what, "did not answer (it took effect)")
        elif (fate := fate - weather.reset) < 0:
            loop.call_at(there, self._land, None, effect, 0.0, what, generation, context=OUTSIDE)
            self._fail(future, back, what, "broke the connection (it took effect)")
        elif (fate := fate - weather.late) < 0:
            landing = loop.time() + self.latest * self.random.random()
            loop.call_at(landing, self._land, None, effect, 0.0, what, generation, context=OUTSIDE)
            self._fail(future, min(given_up, landing), what, "did not answer (it lands late)")
        elif (fate := fate - weather.twice) < 0:
            landing = there + self.timeout * self.random.random()
            if self.random.random() < 0.5:
                loop.call_at(there, self._land, None, effect, 0.0, what, generation, context=OUTSIDE)
                loop.call_at(landing, self._land, future, effect, landing, what, generation, context=OUTSIDE)
            else:
                loop.call_at(there, self._land, future, effect, back, what, generation, context=OUTSIDE)
                loop.call_at(landing, self._land, None, effect, 0.0, what, generation, context=OUTSIDE)
        elif part is not None and fate < weather.torn:
            loop.call_at(there, self._land, None, part, 0.0, f"part of: {what}", generation, context=OUTSIDE)
            self._fail(future, given_up, what, "did not answer (a part took effect)")
        else:
            loop.call_at(there, self._land, future, effect, back, what, generation, context=OUTSIDE)

    def _land(
        self,
        future: asyncio.Future[Any] | None,
        effect: Callable[[], Any],
        back: float,
        what: str,
        generation: int,
    ) -> None:
        answer = None
        error: BaseException | None = None
        if generation != self.generation:
            error = UnavailableError(f"{self.name} closed the connection: {what}")
        else:
            try:
                answer = effect()
            except Exception as raised:
                error = raised
        if self.tell:
            self.tell(f"    {self.name}: {what} ⇒ {error if error is not None else _short(answer)}")
        if future is not None:
            self.loop.call_at(back, _settle, future, answer, error, context=OUTSIDE)

    def _fail(self, future: asyncio.Future[Any], at: float, what: str, why: str) -> None:
        if self.tell:
            self.tell(f"    fault: {self.name} {why}: {what}")
        error = UnavailableError(f"{self.name} {why}: {what}")
        self.loop.call_at(at, _settle, future, None, error, context=OUTSIDE)


def _settle(future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)


def _name(process: object) -> str:
    return getattr(process, "name", "outside")


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) < 160 else text[:157] + "..."
