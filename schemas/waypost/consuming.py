"""Reading the results topic with positions that mean "done with": the consumer beneath a subscriber.

Every term (from one assignment of partitions to the next) has a number. Records and marks of an earlier term
are void: the partition may be another member's by now, and if it is ours again, it is read again from the
position that was committed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError

log = logging.getLogger("waypost")
_COMMIT_SECONDS: Final = 1.0
_POLL_MS: Final = 500
_MOST: Final = 500
_WAIT_SECONDS: Final = 0.2
_LAST_COMMIT_SECONDS: Final = 5.0


class Start(NamedTuple):
    """Where reading begins in a partition without a committed position. ``since`` in milliseconds."""

    from_beginning: bool
    since: int | None


class Batch(NamedTuple):
    """Records of one partition, in order, and the term in which they were read."""

    term: int
    partition: TopicPartition
    records: list[Any]


class Consuming:
    """One consumer, with or without a group. Made anew for each start of a subscriber."""

    def __init__(self, topic: str, group: str | None, start: Start, options: Mapping[str, Any]) -> None:
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
        self._consumer = AIOKafkaConsumer(
            **{
                "rebalance_timeout_ms": 60_000,
                **options,
                "group_id": group,
                "enable_auto_commit": False,
                # Where reading begins is always said; this is for a position that retention has overtaken.
                "auto_offset_reset": "earliest",
            }
        )

    async def open(self) -> None:
        """Connect; KafkaError if the cluster can't be reached. Without a group, wait for the topic."""
        try:
            await self._consumer.start()
            if self._group is None:
                await self._take_all()
            else:
                self._consumer.subscribe([self._topic], listener=_Listener(self))
        except BaseException:
            await self._consumer.stop()
            raise

    async def close(self) -> None:
        """Let what is under way end, commit what is done, and leave."""
        if not self._closed:
            self._closed = True
            if self.before_revoke is not None:
                await self.before_revoke()
            await self.commit()
            await self._consumer.stop()

    async def batches(self) -> AsyncIterator[Batch]:
        """What comes, until closed; commits what was marked from time to time."""
        while not self._closed:
            try:
                found = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_MOST)
            except ConsumerStoppedError:
                return  # closed meanwhile
            # Before a term has begun, positions are not set yet: these records come again.
            term = self.term if self._ready else None
            for partition, records in found.items():
                if term is not None:
                    yield Batch(term, partition, records)
            if asyncio.get_running_loop().time() - self._committed_at > _COMMIT_SECONDS:
                await self.commit()

    def rewind(self) -> None:
        """What was read but not marked comes again."""
        if self._ready and not self._closed:
            for partition, offset in self._done.items():
                self._consumer.seek(partition, offset)

    def mark(self, term: int, partition: TopicPartition, offset: int) -> None:
        """All records of a partition up to this offset are done with."""
        if term == self.term:
            self._done[partition] = offset + 1

    async def commit(self) -> None:
        """Commit what was marked. What can't be committed comes again; that is logged."""
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
            log.info("positions were not committed, events may come again: %r", error)

    async def give_up(self) -> None:
        """The partitions are about to go: finish, commit, and end the term."""
        if self.before_revoke is not None:
            await self.before_revoke()
        await self.commit()
        self._end_term()

    def _end_term(self) -> None:
        self._ready = False
        self.term += 1
        self._done.clear()
        self._committed.clear()

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
        for partition, position in positions.items():
            self._consumer.seek(partition, position)
        self._ready = True
        # A position that was only decided here must be there after a crash: events may come before the first
        # regular commit.
        self._done.update(positions)
        await self.commit()

    async def _positions(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        positions: dict[TopicPartition, int] = {}
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

    async def _take_all(self) -> None:
        # Metadata of a topic comes once it is asked for.
        while not (found := self._consumer.partitions_for_topic(self._topic)):
            await self._consumer._client.add_topic(self._topic)
            if not self._consumer.partitions_for_topic(self._topic):
                await asyncio.sleep(_WAIT_SECONDS)
        partitions = [TopicPartition(self._topic, number) for number in sorted(found)]
        self._consumer.assign(partitions)
        await self.take(partitions)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, consuming: Consuming) -> None:
        self._consuming = consuming

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        await self._consuming.give_up()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._consuming.take(sorted(assigned))
