"""Moves what was accepted from the buffer to Kafka, in order per session, until it is acknowledged.

Partitions are independent: each has a :class:`Lane`, so that one without a leader holds up no other. An error
that leaves the outcome of a batch open ends the producer; its successor sends everything again that was not
acknowledged, from the oldest on. A command may then be in the topic twice, the first time in its right place,
and its id makes the second one a duplicate without effect.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from waypost.backoff import Backoff
from waypost.errors import PublisherClosedError
from waypost.kafka.batch_producer import BatchProducer
from waypost.kafka.client_options import rejecting_options
from waypost.kafka.diagnosis import is_auth_failure, refusal, unreachable
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.publisher.buffer import Buffer
from waypost.publisher.lane import Lane
from waypost.publisher.pending import Pending
from waypost.wire.topics import Topics

log = logging.getLogger("waypost")
# Between two looks at the event loop: about a millisecond of work.
_STEP: Final = 250
# Below the topic's max.message.bytes, which bounds a batch (1,048,588 by default); a larger command goes alone.
_BATCH_BYTES: Final = 256 * 1024
# A sequence number has 31 bits; a new producer starts again from 0 long before it wraps.
_LAST_SEQUENCE: Final = 2**30
_REQUEST_MS: Final = 30_000
_TOPIC_SECONDS: Final = 5.0
_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 2.0
_TOO_LARGE: Final = (MessageSizeTooLargeError, RecordListTooLargeError)

#: Called with a command that left the buffer, its partition and offset (-1 if unknown), and the error that
#: keeps it out of Kafka for good, or None.
OnDone = Callable[[Pending, int, int, BaseException | None], None]


class _RefusedOne(Exception):
    """A command was permanently rejected: the producer's sequence now has a gap, so another one must continue."""


class Sender:
    """The background task of a publisher. It ends only when it is stopped."""

    def __init__(
        self,
        buffer: Buffer,
        topics: Topics,
        source: bytes,
        options: Mapping[str, Any],
        on_done: OnDone,
        on_abandoned: Callable[[], None],
    ) -> None:
        self.last_error: str | None = None
        self._buffer = buffer
        self._topic = topics.commands
        self._source = source
        self._options = {"request_timeout_ms": _REQUEST_MS, "retry_backoff_ms": 100, **options}
        self._on_done = on_done
        self._on_abandoned = on_abandoned
        self._unsettled: Counter[int] = Counter()  # batches by partition, acknowledged and still on the disk
        self._batch_bytes = _BATCH_BYTES
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._partitions = 0
        self._landings = 0
        self._stopping = False
        self._lanes: list[Lane] = []
        with rejecting_options():
            self._producer()  # to see whether it accepts the options
            self._patience = 1.5 * self._options["request_timeout_ms"] / 1000
        self._task = asyncio.create_task(self._run(), name="waypost-sender")

    @property
    def connected(self) -> bool:
        """Return whether a producer is connected. Right after Kafka becomes unreachable it still is; see
        ``waiting_seconds``.
        """
        return bool(self._lanes)

    @property
    def alive(self) -> bool:
        """Return whether this task still runs: not stopped, and its event loop not closed underneath it."""
        return not (self._task.done() or self._task.get_loop().is_closed())

    def waiting_seconds(self) -> float:
        """Return how long the oldest batch has been in flight without an answer; 0 if there is none."""
        launched = [lane.launched_at for lane in self._lanes if lane.in_flight]
        return self._task.get_loop().time() - min(launched) if launched else 0.0

    def wake(self) -> None:
        """Something was put into the buffer. To be called in the loop's thread."""
        self._news.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until this holds; it is looked at after each step forward. PublisherClosedError if this ends first."""
        while not reached():
            if self._task.done():
                raise PublisherClosedError("the publisher was closed meanwhile")
            await self._progress.wait()

    async def partitions(self) -> int:
        """Return how many partitions the command topic has. Wait until Kafka reports it."""
        await self.until(lambda: self._partitions > 0)
        return self._partitions

    async def stop(self) -> None:
        """End without waiting for what is in the buffer."""
        self._stopping = True
        self._task.cancel()
        await asyncio.wait({self._task})
        self._tell_progress()

    async def _run(self) -> None:
        try:
            with quiet():
                await self._one_producer_after_another()
        finally:
            if not self._stopping:
                self._on_abandoned()

    async def _one_producer_after_another(self) -> None:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while True:
            landings = self._landings
            try:
                await self._one_producer()
                continue
            except _RefusedOne:
                continue
            except _TOO_LARGE as error:
                self._batch_bytes = max(1, self._batch_bytes // 2)
                log.info("batches of the publisher are halved to %d bytes: %r", self._batch_bytes, error)
                continue
            except (KafkaError, OSError, TimeoutError) as error:
                self._complain(await self._explained(error))
            except Exception as error:
                log.exception("the publisher continues with a new connection; commands stay in the buffer")
                self._complain(error)
            if self._landings > landings:
                backoff.reset()
            await asyncio.sleep(backoff.next_wait())

    async def _explained(self, error: Exception) -> Exception:
        """Return the cause of a failed connection, if it may be a certificate or a login."""
        if "security_protocol" in self._options and is_auth_failure(error, self._options):
            why = await refusal(self._options)
            return error if why is None else KafkaConnectionError(why)
        return (
            KafkaConnectionError(unreachable(self._options))
            if isinstance(error, KafkaConnectionError)
            else error
        )

    def _complain(self, error: Exception) -> None:
        kind, said = type(error).__name__, str(error)
        if not said.startswith(kind):  # as errors of aiokafka do
            said = f"{kind}: {said}"
        if self.last_error is None:
            log.warning("Kafka does not accept commands now; they stay in the buffer: %s", said)
        self.last_error = said

    async def _one_producer(self) -> None:
        """The life of one producer; returns when it is used up."""
        producer = self._producer()
        try:
            async with asyncio.timeout(self._patience):
                await producer.start()
            while self._unsettled.total():
                self._news.clear()
                await self._until_news()
            await self._open_lanes(producer)
            while await self._step():
                pass
        finally:
            self._lanes = []
            self._buffer.give_all_back()
            discarding = asyncio.ensure_future(producer.close())
            try:
                await asyncio.shield(discarding)
            except asyncio.CancelledError:
                # stop() may come while an earlier failure has this producer discarded: its connections close anyway.
                await asyncio.wait({discarding})
                raise

    def _producer(self) -> BatchProducer:
        return BatchProducer(self._topic, {"max_batch_size": _BATCH_BYTES, **self._options})

    async def _open_lanes(self, producer: BatchProducer) -> None:
        try:
            async with asyncio.timeout(_TOPIC_SECONDS):
                partitions = len(await partitions_of(producer.connections, self._topic))
        except TimeoutError:
            raise TimeoutError(
                f"Kafka does not tell of a topic {self._topic!r}; 'waypost topics create' makes it"
            ) from None
        self._buffer.set_partition_count(partitions)
        self._lanes = [
            Lane(producer, partition, self._source, self._buffer, self._news.set)
            for partition in range(partitions)
        ]
        self._partitions = partitions
        self._tell_progress()

    async def _step(self) -> bool:
        """Land, fill, launch, and rest if there is nothing to do. False when the producer is used up."""
        self._news.clear()
        failures = [error for lane in self._lanes if (error := self._land(lane)) is not None]
        if failures:
            raise failures[0]
        used_up = any(lane.sent > _LAST_SEQUENCE for lane in self._lanes)
        if used_up and not any(lane.in_flight for lane in self._lanes):
            return False
        busy = self._buffer.route(_STEP)
        for lane in self._lanes:
            busy += lane.fill(_STEP, self._batch_bytes)
            if lane.ready and not used_up and self._unsettled[lane.partition] <= self._buffer.most_unsettled:
                lane.launch()
        if busy >= _STEP:
            await asyncio.sleep(0)
        elif all(lane.blocked for lane in self._lanes) or self._buffer.rest():
            # While Kafka is silent and every next batch is full, no call wakes us: that costs a system call each.
            await self._until_news()
        return True

    def _land(self, lane: Lane) -> Exception | None:
        """Take out what Kafka has of a lane's batch, if it has landed; the error if it failed."""
        try:
            offset = lane.land()
        except _TOO_LARGE as error:
            if lane.in_flight > 1:
                return error
            (refused,) = self._take_out(lane.partition, 1)
            self._on_done(refused, lane.partition, -1, error)
            self._tell_progress()
            return _RefusedOne()
        except Exception as error:
            return error
        if offset is not None:
            landed, lane.in_flight = lane.in_flight, 0
            self._landings += 1
            self.last_error = None
            for index, pending in enumerate(self._take_out(lane.partition, landed)):
                # The broker answers -1 if it knows that it has the batch but no longer where.
                self._on_done(pending, lane.partition, offset + index if offset >= 0 else -1, None)
            self._tell_progress()
        return None

    def _take_out(self, partition: int, count: int) -> list[Pending]:
        gone = self._buffer.acknowledge(partition, count)
        if self._buffer.settle(partition, gone, partial(self._settled_elsewhere, partition)):
            self._unsettled[partition] += 1
        return gone

    def _settled_elsewhere(self, partition: int) -> None:
        with suppress(RuntimeError):  # the loop was closed in the meantime, so nobody waits
            self._task.get_loop().call_soon_threadsafe(self._settled, partition)

    def _settled(self, partition: int) -> None:
        self._unsettled[partition] -= 1
        self._news.set()

    def where(self, pending: Pending) -> int | None:
        """The partition of the batch with this command that Kafka has not answered yet, None if there is none."""
        for lane in self._lanes:
            if self._buffer.in_flight(pending, lane.partition, lane.in_flight):
                return lane.partition
        return None

    def being_gathered(self, pending: Pending) -> bool:
        """Return whether this command is in a batch that was not sent yet."""
        return self.where(pending) is None and any(
            self._buffer.in_flight(pending, lane.partition, lane.in_flight + lane.gathered)
            for lane in self._lanes
        )

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def _until_news(self) -> None:
        # The Kafka client retries indefinitely. After this long, its view of the cluster can no longer be trusted (all
        # brokers may have new addresses), and a new client begins with the bootstrap servers.
        patience = self._patience - self.waiting_seconds() if any(x.in_flight for x in self._lanes) else None
        try:
            async with asyncio.timeout(patience):
                await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"Kafka did not answer for {self._patience:.0f} s") from None
