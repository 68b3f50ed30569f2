"""Calling a handler with events: in order per session, many sessions in parallel, with retries.

Knows nothing about Kafka except what it must mark: the position of a partition moves only past events that are done, in
whichever order they finish.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import isawaitable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, Final

from waypost.arguments import require_callable, require_whole
from waypost.backoff import Backoff
from waypost.errors import InvalidArgumentError, quoted
from waypost.subscriber.decryption import decrypted_event
from waypost.subscriber.events import Event, EventFilter, read_event
from waypost.subscriber.tracing import continued_trace

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.subscriber.consumer import FetchedRecords, ResultConsumer

log = logging.getLogger("waypost")
Handler = Callable[[Event], Awaitable[None]]
OnFailure = Callable[[Event, Exception], Awaitable[None]]
SendToDeadLetters = Callable[[Event, Exception, int], Awaitable[None]]
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 30.0
_BACKLOG: Final = 1_000
_BACKLOG_BYTES: Final = 64 * 1024 * 1024
#: How long a rebalance waits for handlers under way; less than the group's rebalance timeout.
_FINISH_SECONDS: Final = 30.0
#: How often a subscriber that takes nothing shows its group that it lives.
_STAY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """Options for handling events: ``handler``, the number of parallel sessions, and the reaction to failures.

    ``codec`` decrypts them first, if there is one.
    """

    handler: Handler
    concurrency: int
    retries: int
    on_failure: OnFailure | None
    codec: "Codec | None" = None

    def __post_init__(self) -> None:
        require_callable("the handler", self.handler)
        require_whole("concurrency", self.concurrency, 1)
        require_whole("retries", self.retries, 0)
        if self.on_failure is not None:
            require_callable("on_failure", self.on_failure)


class _PendingOffset:
    """An offset and whether it is done with."""

    __slots__ = ("done", "offset", "partition", "term")

    def __init__(self, term: int, partition: Any, offset: int) -> None:
        self.term = term
        self.partition = partition
        self.offset = offset
        self.done = False


class HandlerDispatcher:
    """One run of a handler. ``send_to_dead_letters`` takes what failed for good, before the plan's callback does."""

    def __init__(
        self,
        consuming: "ResultConsumer",
        wanted: EventFilter,
        plan: HandlerOptions,
        send_to_dead_letters: SendToDeadLetters | None,
    ) -> None:
        self._consuming = consuming
        self._wanted = wanted
        self._plan = plan
        self._send_to_dead_letters = send_to_dead_letters
        self._slots = asyncio.Semaphore(plan.concurrency)
        self._places: dict[Any, deque[_PendingOffset]] = {}
        self._sessions: dict[str | None, deque[tuple[_PendingOffset, Event]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._backlog = 0
        self._backlog_bytes = 0
        self._step = asyncio.Event()
        self._finished_term = -1  # events of this term or an earlier one are no longer started
        self._finishing = asyncio.Event()  # ends the pauses between tries; a new one for each term
        self._failed = asyncio.Event()
        self._failure: Exception | None = None
        self._random = Random()

    async def run(self) -> None:
        """Until the consumer is closed or an event has failed for good; raises what it raised then."""
        self._consuming.before_revoke = self._finish
        ends = [asyncio.create_task(self._read()), asyncio.create_task(self._failed.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._failure is None:
                await ends[0]
            await self._finish()
        finally:
            self._consuming.before_revoke = None
            await _cancel({*ends, *self._tasks})
        if self._failure is not None:
            raise self._failure

    async def _read(self) -> None:
        async for batch in self._consuming.batches():
            self._take(batch)
            while self._full():
                self._step.clear()
                try:
                    async with asyncio.timeout(_STAY_SECONDS):
                        await self._step.wait()
                except TimeoutError:
                    await self._consuming.stay()

    def _full(self) -> bool:
        return self._backlog >= _BACKLOG or self._backlog_bytes >= _BACKLOG_BYTES

    def _take(self, batch: "FetchedRecords") -> None:
        places = self._places.setdefault(batch.partition, deque())
        for record in batch.records:
            place = _PendingOffset(batch.term, batch.partition, record.offset)
            places.append(place)
            if record.value is not None and self._wanted.wants(record.headers):
                self._enqueue(place, read_event(record))
            else:
                place.done = True
        self._advance(batch.partition)

    def _enqueue(self, place: _PendingOffset, event: Event) -> None:
        self._backlog += 1
        self._backlog_bytes += len(event.raw_body)
        queue = self._sessions.get(event.session_id)
        if queue is not None:
            queue.append((place, event))
            return
        self._sessions[event.session_id] = queue = deque([(place, event)])
        task = asyncio.create_task(self._work(event.session_id, queue))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, session_id: str | None, queue: deque[tuple[_PendingOffset, Event]]) -> None:
        """Handle the waiting events of one session, one at a time."""
        while queue:
            place, event = queue[0]
            try:
                place.done = await self._settle(place, event)
            except Exception as error:
                self._end(error)
            if place.done:
                self._advance(place.partition)
            queue.popleft()
            self._backlog -= 1
            self._backlog_bytes -= len(event.raw_body)
            self._step.set()
        del self._sessions[session_id]

    def _may_begin(self, place: _PendingOffset) -> bool:
        # Events that were not started are delivered again: in the partition's next term, here or elsewhere.
        return self._failure is None and self._finished_term < place.term == self._consuming.term

    async def _settle(self, place: _PendingOffset, event: Event) -> bool:
        """Until the event is done with; False if it is left to come again."""
        finishing = self._finishing
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT, jitter=(0.5, 1.0), random=self._random)
        for attempt in count(1):
            async with self._slots:
                if not self._may_begin(place):
                    return False
                try:
                    event = await decrypted_event(event, self._plan.codec)
                    with continued_trace(event):
                        handling: object = self._plan.handler(event)
                        if not isawaitable(handling):
                            return self._end(_not_async("the handler", self._plan.handler))
                        await handling
                    return True
                except Exception as error:
                    if attempt > self._plan.retries:
                        await self._give_up(event, error, attempt)
                        return True
                    log.warning("the handler failed for event %s and will be retried: %r", event.id, error)
            # Without a slot: a session that fails does not hold up the others.
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.next_wait()):
                    await finishing.wait()
        raise AssertionError("unreachable")

    def _end(self, failure: Exception) -> bool:
        """The run ends with this, and the event was not handled."""
        self._failure = self._failure or failure
        self._failed.set()
        return False

    async def _give_up(self, event: Event, error: Exception, attempts: int) -> None:
        on_failure = self._plan.on_failure
        if self._send_to_dead_letters is None and on_failure is None:
            raise error
        if self._send_to_dead_letters is not None:
            await self._send_to_dead_letters(event, error, attempts)
        if on_failure is not None:
            telling: object = on_failure(event, error)
            if not isawaitable(telling):
                raise _not_async("on_failure", on_failure) from error
            await telling

    def _advance(self, partition: Any) -> None:
        """Mark as far as everything is done."""
        places = self._places[partition]
        last = None
        while places and (places[0].done or places[0].term != self._consuming.term):
            last = places.popleft()
        if last is not None:
            self._consuming.mark(last.term, partition, last.offset)

    async def _finish(self) -> None:
        """Begin nothing more, and let handlers under way end, within a time."""
        self._finished_term = self._consuming.term
        self._finishing.set()
        self._finishing = asyncio.Event()
        # A handler that closes its own subscriber is not waited for.
        if others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=_FINISH_SECONDS)


def _not_async(what: str, function: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{what} must be an async function, and {quoted(function)} is not: define it with 'async def'"
    )


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
