"""Reading the results topic with positions that mean "done with": the consumer beneath a subscriber.

Every term (from one assignment of partitions to the next) has a number. Records and marks of an earlier term
are void: the partition may be another member's by now, and if it is ours again, it is read again from the
position that was committed. A consumer that is stuck is replaced by a new one; that ends a term too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

from waypost.kafka.bounded_fetch import decode_bounded
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import OutageLog, quiet
from waypost.subscriber.failures import subscriber_error
from waypost.subscriber.watchdog import Activity, FetchProgress, Watch, Watchdog, abandon

log = logging.getLogger("waypost")
_COMMIT_SECONDS: Final = 1.0
_POLL_MS: Final = 500
_MOST: Final = 500
_WAIT_SECONDS: Final = 0.2
_LAST_COMMIT_SECONDS: Final = 5.0
_REBALANCE_MS: Final = 60_000


class Start(NamedTuple):
    """The start of reading in a partition without a committed position. ``since`` in milliseconds."""

    from_beginning: bool
    since: int | None


class FetchedRecords(NamedTuple):
    """Records of one partition, in order, and the term in which they were read."""

    term: int
    partition: TopicPartition
    records: list[Any]


class ResultConsumer:
    """One subscription, with or without a group. Created again for each start of a subscriber."""

    def __init__(
        self, topic: str, group: str | None, start: Start, options: Mapping[str, Any], watch: Watch
    ) -> None:
        self.term = 0
        #: Awaited before partitions are given up, so that what is under way can be finished.
        self.before_revoke: Callable[[], Awaitable[None]] | None = None
        self._topic = topic
        self._group = group
        self._start = start
        self._ready = False
        self._closed = False
        self._done: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committed_at = 0.0
        self._options = options
        self._progress: FetchProgress[TopicPartition] = FetchProgress(watch.patience)
        #: #: The position at which a subscription without a group continues in a new consumer.
        self._kept: dict[TopicPartition, int] = {}
        self._asking: asyncio.Task[dict[TopicPartition, list[Any]]] | None = None
        self._asking_since = 0.0
        self._ready_at = 0.0
        self._watchdog = Watchdog(
            topic,
            watch,
            self._progress,
            self._activity,
            make_probe=partial(self._made, None),
            replace=self._replace,
            # A rebalance takes as long as the slowest member may take to finish.
            longest_rebalance=int(options.get("rebalance_timeout_ms", _REBALANCE_MS)) / 1000,
        )
        self._connected = asyncio.Event()
        self._outage = OutageLog("results may come late")
        self._consumer = self._made(group)

    def _made(self, group: str | None) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **{
                "rebalance_timeout_ms": _REBALANCE_MS,
                **self._options,
                "group_id": group,
                "enable_auto_commit": False,
                # The start of reading is always explicit; this is for a position that retention has overtaken.
                "auto_offset_reset": "earliest",
            }
        )

    @property
    def restarts(self) -> int:
        """The number of times the consumer was replaced."""
        return self._watchdog.restarts

    async def open(self) -> None:
        """Connect, and wait for the topic; KafkaError if the cluster can't be reached."""
        await self._connect()
        # A start that fails raises an error.
        self._outage.enabled = True
        with quiet(self._outage):
            self._watchdog.start()

    async def _connect(self) -> None:
        self._ready_at = asyncio.get_running_loop().time()
        try:
            with quiet(self._outage):
                await self._consumer.start()
            decode_bounded(self._consumer, partial(self._passed, self._consumer))
            numbers = await partitions_of(self._consumer._client, self._topic, patient=True)
            partitions = [TopicPartition(self._topic, number) for number in numbers]
            if self._group is None:
                self._consumer.assign(partitions)
                await self.take(partitions)
            else:
                self._consumer.subscribe([self._topic], listener=_Listener(self, self._consumer))
        except BaseException:
            await self._consumer.stop()
            raise
        self._connected.set()

    async def close(self) -> None:
        """Let what is under way end, commit what is done, and leave."""
        if not self._closed:
            self._closed = True
            self._connected.set()
            await self._watchdog.stop()
            await self._finish()
            await self._consumer.stop()

    async def batches(self) -> AsyncIterator[FetchedRecords]:
        """Yield records until closed, and periodically commit those that were marked."""
        while not self._closed:
            self._watchdog.check()
            found = await self._ask(timeout_ms=_POLL_MS, max_records=_MOST)
            # Before a term has begun, positions are not set yet: these records come again.
            term = self.term if self._ready else None
            for partition, records in found.items():
                if term is not None and term == self.term:
                    self._progress.came(partition, records[-1].offset + 1)
                    yield FetchedRecords(term, partition, records)
            if asyncio.get_running_loop().time() - self._committed_at > _COMMIT_SECONDS:
                await self.commit()

    async def stay(self) -> None:
        """Take nothing, but remain a member of the group: to ask is what shows that a member lives."""
        await self._ask(TopicPartition(self._topic, -1))

    async def _ask(self, *partitions: TopicPartition, **limits: Any) -> dict[TopicPartition, list[Any]]:
        """Return the consumer's next records; none if it was replaced or closed, or can't read just now."""
        clock = asyncio.get_running_loop().time
        await self._connected.wait()
        if self._closed:
            return {}
        term = self.term
        self._asking_since = clock()
        with quiet(self._outage):
            self._asking = asking = asyncio.create_task(self._consumer.getmany(*partitions, **limits))
        try:
            await asyncio.wait({asking})
        finally:
            self._asking = None
            asking.cancel()
        if asking.cancelled():
            return {}  # by the watchdog: there is another consumer, or soon will be
        try:
            found = asking.result()
        except ConsumerStoppedError:
            return {}
        except KafkaError as error:
            if not error.retriable:
                raise subscriber_error(error, self._topic, self._group) from error
            log.info("results can't be read just now: %r", error)
            await asyncio.sleep(_WAIT_SECONDS)
            return {}
        if term == self.term and not partitions:
            self._progress.asked(clock() - self._asking_since, found.keys())
        return found

    def _passed(self, consumer: AIOKafkaConsumer, partition: TopicPartition, next_offset: int) -> None:
        if consumer is self._consumer:
            self._progress.passed(partition, next_offset)

    def rewind(self) -> None:
        """Records that were read but not marked are delivered again."""
        if self._ready and not self._closed:
            for partition, offset in self._done.items():
                self._consumer.seek(partition, offset)
            self._progress.begin(self._done)

    def mark(self, term: int, partition: TopicPartition, offset: int) -> None:
        """All records of a partition up to this offset are done with."""
        if term == self.term:
            self._done[partition] = offset + 1

    async def commit(self) -> None:
        """Commit what was marked. Records that can't be committed are delivered again; that is logged."""
        self._committed_at = asyncio.get_running_loop().time()
        news = {
            partition: offset
            for partition, offset in self._done.items()
            if self._committed.get(partition) != offset
        }
        if self._group is None or not news:
            return
        try:
            async with asyncio.timeout(_LAST_COMMIT_SECONDS):
                await self._consumer.commit(news)
            self._committed.update(news)
        except (KafkaError, TimeoutError) as error:
            log.info("positions were not committed, so events may be delivered again: %r", error)

    def reads_with(self, consumer: AIOKafkaConsumer) -> bool:
        """Return whether this is the consumer in use."""
        return consumer is self._consumer

    async def give_up(self) -> None:
        """The partitions are about to go: finish, commit, and end the term."""
        await self._finish()
        self._end_term()

    async def _finish(self) -> None:
        if self.before_revoke is not None:
            await self.before_revoke()
        await self.commit()

    def _end_term(self) -> None:
        self._ready = False
        self._ready_at = asyncio.get_running_loop().time()
        self.term += 1
        self._done.clear()
        self._committed.clear()
        self._progress.begin({})

    async def take(self, partitions: list[TopicPartition]) -> None:
        """Partitions came: set every position, and begin the term. Tries until Kafka answers."""
        consumer = self._consumer
        while not self._closed and consumer is self._consumer:
            try:
                positions = await self._positions(partitions)
                break
            except (KafkaError, TimeoutError) as error:
                log.warning("positions of %s can't be read yet: %r", self._topic, error)
                await asyncio.sleep(_WAIT_SECONDS)
        else:
            return
        for partition, position in positions.items():
            consumer.seek(partition, position)
        self._progress.begin(positions)
        self._ready = True
        # A position that was only decided here must be there after a crash: events may come before the first
        # regular commit.
        self._done.update(positions)
        await self.commit()

    async def _positions(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        positions = {partition: self._kept[partition] for partition in partitions if partition in self._kept}
        if self._group is not None:
            for partition in partitions:
                committed = await self._consumer.committed(partition)
                if committed is not None:
                    positions[partition] = self._committed[partition] = committed
        fresh = [partition for partition in partitions if partition not in positions]
        if not fresh:
            return positions
        if self._start.since is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(fresh, self._start.since))
            positions.update({partition: at.offset for partition, at in found.items() if at is not None})
            fresh = [partition for partition in fresh if partition not in positions]
        elif self._start.from_beginning:
            positions.update(await self._consumer.beginning_offsets(fresh))
            fresh = []
        if fresh:
            positions.update(await self._consumer.end_offsets(fresh))
        return positions

    def _activity(self) -> Activity:
        now = asyncio.get_running_loop().time()
        asking_for = 0.0 if self._asking is None else now - self._asking_since
        return Activity(asking_for, None if self._ready else now - self._ready_at)

    async def _replace(self) -> None:
        """Replace the consumer with a new one, which continues after the records that are done."""
        await self._finish()
        self._kept = dict(self._done) if self._group is None else {}
        self._end_term()
        self._connected.clear()
        old, self._consumer = self._consumer, self._made(self._group)
        if self._asking is not None:
            self._asking.cancel()
        await abandon(old)
        while True:
            try:
                await self._connect()
                return
            except KafkaError as error:
                log.warning("the new consumer of %s can't connect yet: %r", self._topic, error)
                await asyncio.sleep(_WAIT_SECONDS)
                self._consumer = self._made(self._group)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, consuming: ResultConsumer, consumer: AIOKafkaConsumer) -> None:
        self._consuming = consuming
        self._consumer = consumer

    # A replaced consumer has no effect, no matter how long it lives.

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if self._consuming.reads_with(self._consumer):
            await self._consuming.give_up()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        if self._consuming.reads_with(self._consumer):
            await self._consuming.take(sorted(assigned))
