"""Results as they arrive, for all tabs together: one subscriber, the latest results, and the tabs that wait for
more.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, NamedTuple

from waypost.backoff import Backoff
from waypost.errors import WaypostError
from waypost.subscriber.client import Subscriber
from waypost.subscriber.events import Event
from waypost_worker.console.pages.tail import place_of

log = logging.getLogger("waypost.console")
_KEPT: Final = 1000
_BEFORE: Final = timedelta(seconds=60)
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 10.0
#: Process this many results per turn of the event loop, so that pages are answered in between.
_TURN: Final = 200


class Numbered(NamedTuple):
    """Result with its number among all that this console saw."""

    number: int
    event: Event


class LiveResults:
    """The latest results; ``error`` says why there are no new ones, if that is so."""

    def __init__(self, make: Callable[[datetime], Subscriber]) -> None:
        self._make = make
        self._latest: deque[Numbered] = deque(maxlen=_KEPT)
        self._count = 0
        self._seen: dict[int, int] = {}
        self._changed = asyncio.Condition()
        self.error: str | None = None

    @property
    def count(self) -> int:
        """The number of results seen."""
        return self._count

    def latest(self, wanted: Callable[[Event], bool], most: int) -> list[Event]:
        """Return the newest results that are wanted, newest first."""
        found = (each.event for each in reversed(self._latest) if wanted(each.event))
        return list(islice(found, most))

    def number_of(self, place: str) -> int | None:
        """Return the number of the result at a place; None if it is not kept."""
        return next((each.number for each in self._latest if place_of(each.event) == place), None)

    async def after(self, number: int, timeout: float) -> list[Numbered]:
        """Wait for results after one; those that are kept, or none in time."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._count > number)
        except TimeoutError:
            return []
        return [each for each in self._latest if each.number > number]

    async def run(self) -> None:
        """Follow the results topic until canceled. Retry if Kafka is unreachable."""
        since = datetime.now(UTC) - _BEFORE
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while True:
            try:
                async with self._make(since) as subscriber:
                    self.error = None
                    backoff.reset()
                    async for event in subscriber:
                        await self._take(event)
                        since = event.time or since
            except WaypostError as error:
                self.error = str(error)
                log.debug("results can't be followed just now: %s", error)
            await asyncio.sleep(backoff.next_wait())

    async def _take(self, event: Event) -> None:
        if event.offset <= self._seen.get(event.partition, -1):
            return
        self._seen[event.partition] = event.offset
        self._count += 1
        self._latest.append(Numbered(self._count, event))
        async with self._changed:
            self._changed.notify_all()
        if self._count % _TURN == 0:
            await asyncio.sleep(0)


@asynccontextmanager
async def live_results(
    servers: str, topic_prefix: str, kafka_options: Mapping[str, Any]
) -> AsyncIterator[LiveResults]:
    """Follow the results topic while the block runs."""

    def make(since: datetime) -> Subscriber:
        return Subscriber(servers, topic_prefix=topic_prefix, since=since, kafka_options=dict(kafka_options))

    made = LiveResults(make)
    task = asyncio.create_task(made.run(), name="console-results")
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
