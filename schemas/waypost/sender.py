"""Moves what was accepted from the buffer to Kafka: in order per session, until it is acknowledged.

One flight at a time: the oldest commands, one batch per partition. What Kafka acknowledged leaves the
buffer; the rest stays at its front and flies again. After an error that leaves the outcome open a command may
be in the topic twice; its id makes the second one a duplicate without effect.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidMessageError, KafkaError, MessageSizeTooLargeError

from waypost.buffer import Buffer, Pending
from waypost.topics import Topics, partition_of

log = logging.getLogger("waypost")
_FLIGHT_COUNT: Final = 8_000
_FLIGHT_BYTES: Final = 8 * 1024 * 1024
_BATCH_BYTES: Final = 1_000_000  # below the topic's max.message.bytes of 1,048,588
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 2.0
_REFUSED: Final = (MessageSizeTooLargeError, InvalidMessageError)


class Sender:
    """The background task of a publisher."""

    def __init__(
        self,
        buffer: Buffer,
        topics: Topics,
        options: Mapping[str, Any],
        on_done: Callable[[Pending, BaseException | None], None],
    ) -> None:
        self.connected = False
        self.last_error: str | None = None
        self._buffer = buffer
        self._topic = topics.commands
        self._options = dict(options)
        self._on_done = on_done
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._producer: AIOKafkaProducer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once, whether Kafka is there or not."""
        self._task = asyncio.create_task(self._run(), name="waypost-sender")

    def wake(self) -> None:
        """Something was put into the buffer. To be called in the loop's thread."""
        self._work.set()

    async def until(self, target: int) -> None:
        """Wait until so many commands, ever, have left the buffer."""
        while self._buffer.taken < target:
            progress = self._progress
            await progress.wait()

    async def partitions(self) -> int:
        """How many partitions the command topic has; waits until Kafka tells."""
        producer = await self._connected()
        return len(await producer.partitions_for(self._topic))

    async def stop(self) -> None:
        """End without waiting for what is in the buffer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop_producer()

    async def _run(self) -> None:
        wait = _FIRST_WAIT
        while True:
            if not len(self._buffer):
                self._work.clear()
                if not len(self._buffer):
                    await self._work.wait()
            try:
                await self._fly()
                wait = _FIRST_WAIT
                self.last_error = None
            except (KafkaError, OSError, TimeoutError, AssertionError) as error:
                if self.last_error is None:
                    log.warning("Kafka is not taking commands, they stay in the buffer: %r", error)
                self.last_error = f"{type(error).__name__}: {error}"
                await self._drop_producer()
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    async def _fly(self) -> None:
        """Send the oldest commands and take out what Kafka acknowledged or refused for good."""
        producer = await self._connected()
        partitions = len(await producer.partitions_for(self._topic))
        flight = self._buffer.peek(_FLIGHT_COUNT, _FLIGHT_BYTES)
        lanes: dict[int, list[int]] = {}
        for index, pending in enumerate(flight):
            partition = pending.partition
            if partition is None:
                partition = partition_of(pending.session_id or "", partitions)
            lanes.setdefault(partition, []).append(index)
        finished: dict[int, BaseException | None] = {}
        try:
            outcomes = await asyncio.gather(
                *(self._lane(producer, lane, places, flight, finished) for lane, places in lanes.items()),
                return_exceptions=True,
            )
        finally:
            self._buffer.done(set(finished), len(flight))
            self._progress.set()
            self._progress = asyncio.Event()
        for index in sorted(finished):
            self._on_done(flight[index], finished[index])
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _lane(
        self,
        producer: AIOKafkaProducer,
        partition: int,
        places: list[int],
        flight: list[Pending],
        finished: dict[int, BaseException | None],
    ) -> None:
        """Send one partition's commands batch after batch; the first failure ends the lane, keeping order."""
        at = 0
        while at < len(places):
            batch = producer.create_batch()
            first = at
            while at < len(places):
                pending = flight[places[at]]
                key = None if pending.session_id is None else pending.session_id.encode()
                added = batch.append(timestamp=None, key=key, value=pending.value, headers=pending.headers)
                if added is None:
                    break
                at += 1
            batch.close()
            chosen = places[first:at]
            try:
                await (await producer.send_batch(batch, self._topic, partition=partition))
            except _REFUSED as error:
                if len(chosen) > 1:
                    # One of them is too large: alone, each shows whether it is the one.
                    for place in chosen:
                        await self._lane(producer, partition, [place], flight, finished)
                    continue
                finished[chosen[0]] = error
            else:
                for place in chosen:
                    finished[place] = None

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                **{
                    "max_batch_size": _BATCH_BYTES,
                    "max_request_size": 2 * _BATCH_BYTES,
                    "retry_backoff_ms": 50,
                    **self._options,
                    "enable_idempotence": True,
                    "acks": "all",
                    "linger_ms": 0,
                }
            )
            try:
                await producer.start()
            except BaseException:
                await self._quietly_stop(producer)
                raise
            self._producer = producer
            self.connected = True
        return self._producer

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        self.connected = False
        if producer is not None:
            await self._quietly_stop(producer)

    async def _quietly_stop(self, producer: AIOKafkaProducer) -> None:
        with suppress(Exception):
            await asyncio.wait_for(producer.stop(), 1.0)
        with suppress(Exception):
            await asyncio.wait_for(producer.client.close(), 1.0)
