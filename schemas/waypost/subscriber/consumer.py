"""Reading the results topic with positions that mean "done with": the consumer beneath a subscriber.

Every term (from one assignment of partitions to the next) has a number. Records and marks of an earlier term
are void: the partition may be another member's by now, and if it is ours again, it is read again from the
position that was committed. A consumer that is stuck is replaced by a new one; that ends a term too.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from waypost.arguments import require_text
from waypost.errors import InvalidArgumentError, quoted
from waypost.kafka.group_member import GroupMember, GroupOptions
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import OutageLog, quiet
from waypost.kafka.topic_reader import TopicReader, require_consumer_options
from waypost.subscriber.failures import subscriber_error
from waypost.subscriber.watchdog import Activity, FetchProgress, Watch, Watchdog

log = logging.getLogger("waypost")
_COMMIT_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.5
_MOST: Final = 500
_WAIT_SECONDS: Final = 0.2
_LAST_COMMIT_SECONDS: Final = 5.0
_LEAVE_SECONDS: Final = 1.0
_REBALANCE_SECONDS: Final = 60.0


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
        self._group = None if group is None else _group_options(group, options)
        self._start = start
        self._ready = False
        self._closed = False
        self._done: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committed_at = 0.0
        self._options = options
        self._progress: FetchProgress[TopicPartition] = FetchProgress(watch.patience)
        #: The position at which a subscription without a group continues in a new consumer.
        self._kept: dict[TopicPartition, int] = {}
        self._asking: asyncio.Task[dict[TopicPartition, list[Any]]] | None = None
        self._asking_since = 0.0
        self._ready_at = 0.0
        self._watchdog = Watchdog(
            topic,
            watch,
            self._progress,
            self._activity,
            make_probe=self._made_probe,
            replace=self._replace,
            # A rebalance takes as long as the slowest member may take to finish.
            longest_rebalance=_REBALANCE_SECONDS if self._group is None else self._group.rebalance_timeout,
        )
        self._connected = asyncio.Event()
        self._outage = OutageLog("results may come late")
        self._member: GroupMember | None = None
        self._membership: asyncio.Task[None] | None = None
        consumer_options = {"group_id": group, "enable_auto_commit": False, "auto_offset_reset": "earliest"}
        require_consumer_options({**options, **consumer_options})
        self._reader = self._made()

    def _made(self) -> TopicReader:
        with quiet():
            return TopicReader(
                self._topic, self._options, passed=self._progress.passed, unreachable=self._outage.tell
            )

    def _made_probe(self) -> TopicReader:
        with quiet():
            return TopicReader(self._topic, self._options)

    @property
    def restarts(self) -> int:
        """The number of times the consumer was replaced."""
        return self._watchdog.restarts

    async def open(self) -> None:
        """Connect, and wait for the topic; KafkaError if the cluster can't be reached."""
        await self._connect()
        # A start that fails raises an error.
        self._outage.enabled = True
        with quiet():
            self._watchdog.start()

    async def _connect(self) -> None:
        self._ready_at = asyncio.get_running_loop().time()
        reader = self._reader
        try:
            with quiet():
                await reader.start()
            numbers = await partitions_of(reader.connections, self._topic, patient=True)
            if self._group is None:
                await self.take([TopicPartition(self._topic, number) for number in numbers])
            else:
                self._member = GroupMember(
                    reader.connections,
                    self._topic,
                    self._group,
                    on_revoked=self.give_up,
                    on_assigned=self.take,
                )
                self._join()
        except BaseException:
            await reader.stop()
            raise
        self._connected.set()

    def _join(self) -> None:
        if self._member is not None:
            with quiet():
                self._membership = asyncio.create_task(self._member.run(), name="waypost-member")

    async def _leave(self) -> None:
        """Leave the group, and disconnect. Takes seconds at most."""
        member, self._member = self._member, None
        membership, self._membership = self._membership, None
        if membership is not None:
            membership.cancel()
            await asyncio.gather(membership, return_exceptions=True)
        if member is not None:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await member.leave()
        await self._reader.stop()

    async def close(self) -> None:
        """Let what is under way end, commit what is done, and leave. Leave even if canceled."""
        if self._closed:
            return
        self._closed = True
        self._connected.set()
        try:
            await self._watchdog.stop()
            await self._finish()
        finally:
            # A member that is left behind would keep its partitions, and give their events to nobody.
            leaving = asyncio.ensure_future(self._leave())
            try:
                await asyncio.shield(leaving)
            except asyncio.CancelledError:
                await asyncio.wait({leaving})
                raise

    async def batches(self) -> AsyncIterator[FetchedRecords]:
        """Yield records until closed, and periodically commit those that were marked."""
        while not self._closed:
            self._watchdog.check()
            found = await self._ask(_POLL_SECONDS, _MOST)
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
        await self._ask(0, 0)

    async def _ask(self, seconds: float, most: int) -> dict[TopicPartition, list[Any]]:
        """Return the next records; none if the consumer was replaced or closed, or can't read just now."""
        clock = asyncio.get_running_loop().time
        await self._connected.wait()
        if self._closed:
            return {}
        term = self.term
        self._asking_since = clock()
        self._asking = asking = asyncio.create_task(self._reader.take(seconds, most))
        membership = self._membership
        try:
            with nullcontext() if self._member is None else self._member.polling():
                await asyncio.wait(
                    {asking} if membership is None else {asking, membership},
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            self._asking = None
            asking.cancel()
        try:
            if membership is not None and membership.done() and membership is self._membership:
                self._join()  # the next call after the error tries again
                membership.result()
            if asking.cancelled() or not asking.done():
                return {}  # by the watchdog: there is another consumer, or soon will be
            found = asking.result()
        except KafkaError as error:
            if not error.retriable:
                group = None if self._group is None else self._group.group_id
                raise subscriber_error(error, self._topic, group) from error
            log.info("results can't be read just now: %r", error)
            await asyncio.sleep(_WAIT_SECONDS)
            return {}
        if term == self.term and most:
            self._progress.asked(clock() - self._asking_since, found.keys())
        return found

    def rewind(self) -> None:
        """Records that were read but not marked are delivered again."""
        if self._ready and not self._closed:
            for partition, offset in self._done.items():
                self._reader.seek(partition, offset)
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
        if self._member is None or not news:
            return
        try:
            async with asyncio.timeout(_LAST_COMMIT_SECONDS):
                await self._member.commit(news)
            self._committed.update(news)
        except (KafkaError, TimeoutError) as error:
            log.info("positions were not committed, so events may be delivered again: %r", error)

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
        self._reader.read_only({})

    async def take(self, partitions: list[TopicPartition]) -> None:
        """Partitions came: set every position, and begin the term. Tries until Kafka answers."""
        while not self._closed:
            try:
                positions = await self._positions(partitions)
                break
            except (KafkaError, TimeoutError) as error:
                log.warning("positions of %s can't be read yet: %r", self._topic, error)
                await asyncio.sleep(_WAIT_SECONDS)
        else:
            return
        self._reader.read_only(positions)
        self._progress.begin(positions)
        self._ready = True
        # A position that was only decided here must be there after a crash: events may come before the first
        # regular commit.
        self._done.update(positions)
        await self.commit()

    async def _positions(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        positions = {partition: self._kept[partition] for partition in partitions if partition in self._kept}
        if self._member is not None:
            committed = await self._member.committed(partitions)
            positions.update(committed)
            self._committed.update(committed)
        fresh = [partition for partition in partitions if partition not in positions]
        if not fresh:
            return positions
        if self._start.since is not None:
            found = await self._reader.offsets_at(dict.fromkeys(fresh, self._start.since))
            positions.update({partition: at for partition, at in found.items() if at >= 0})
            fresh = [partition for partition in fresh if partition not in positions]
        elif self._start.from_beginning:
            positions.update(await self._reader.first_offsets(fresh))
            fresh = []
        if fresh:
            positions.update(await self._reader.end_offsets(fresh))
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
        if self._asking is not None:
            self._asking.cancel()
        await self._leave()
        while True:
            self._reader = self._made()
            try:
                await self._connect()
                return
            except KafkaError as error:
                log.warning("the new consumer of %s can't connect yet: %r", self._topic, error)
                await asyncio.sleep(_WAIT_SECONDS)


def _group_options(group: str, options: Mapping[str, Any]) -> GroupOptions:
    """Return how to take part in a group, given options of aiokafka's consumer."""

    def seconds(name: str, default: float) -> float:
        return float(options[name]) / 1000 if name in options else default

    assignors = tuple(options.get("partition_assignment_strategy", (RoundRobinPartitionAssignor,)))
    for each in assignors:
        if not (isinstance(each, type) and issubclass(each, AbstractPartitionAssignor)):
            raise InvalidArgumentError(
                f"partition_assignment_strategy has {quoted(each)}, which assigns nothing"
            )
    if (instance_id := options.get("group_instance_id")) is not None:
        require_text("group_instance_id", instance_id)
    return GroupOptions(
        group,
        assignors,
        session_timeout=seconds("session_timeout_ms", 10.0),
        rebalance_timeout=seconds("rebalance_timeout_ms", _REBALANCE_SECONDS),
        heartbeat_interval=seconds("heartbeat_interval_ms", 3.0),
        instance_id=instance_id,
        max_poll_interval=seconds("max_poll_interval_ms", 300.0),
    )
