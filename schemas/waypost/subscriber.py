"""The downstream side: result events, each at least once, in order per session.

Positions are committed only for events that the application is done with: with the iterator that is when it
asks for the next one, with :meth:`Subscriber.run` when its handler has returned. After a crash or a rebalance
the events since then come again; their ids are the same, see :class:`Deduplicator`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Self

import orjson
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from waypost.checkpoint import Checkpoint
from waypost.text import canonical_metadata
from waypost.times import from_micros, parse_micros, to_micros
from waypost.topics import DEFAULT_PREFIX, Topics

log = logging.getLogger("waypost")
ACQUIRED: Final = "waypost.partition.acquired"
_COMMIT_SECONDS: Final = 1.0
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0


@dataclass(frozen=True)
class Event:
    """One result. Headers are decoded, the body is parsed when it is first looked at."""

    id: str
    type: str
    session_id: str | None
    subject: str | None
    name: str | None
    time: datetime | None
    partition: int
    offset: int
    traceparent: str | None
    raw_body: bytes

    @cached_property
    def body(self) -> dict[str, Any]:
        """The whole result, parsed."""
        body: dict[str, Any] = orjson.loads(self.raw_body)
        return body

    @property
    def removed(self) -> list[str]:
        """Ids of the checkpoints that retention (or a rollback) dropped with this command."""
        removed: list[str] = self.body.get("removed", [])
        return removed

    @property
    def command_id(self) -> str | None:
        """The id of the command that this is the result of; None where it could not be read."""
        identifier: str | None = self.body["command"]["id"]
        return identifier

    @property
    def token(self) -> tuple[int, int]:
        """(partition, offset) of the command, for ``Reader.wait_for``."""
        command = self.body["command"]
        return command["partition"], command["offset"]

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint of a created or rolled_back event, else None."""
        found = self.body.get("checkpoint")
        if found is None:
            return None
        return Checkpoint(
            id=found["id"],
            name=found["name"],
            timestamp=from_micros(parse_micros(found["timestamp"])),
            recorded_at=from_micros(parse_micros(found["recorded_at"])),
            raw_data=orjson.dumps(found["data"]),
            raw_metadata=canonical_metadata(found["metadata"]),
            pinned=found["pinned"],
            imported_id=found.get("imported_id"),
        )


def read_event(record: Any) -> Event:
    """The event in a record of the results topic."""
    headers = {name: value.decode() for name, value in record.headers if value is not None}
    time = headers.get("ce_time")
    return Event(
        id=headers.get("ce_id", ""),
        type=headers.get("ce_type", ""),
        session_id=headers.get("ce_sessionid"),
        subject=headers.get("ce_subject"),
        name=headers.get("ce_checkpointname"),
        time=None if time is None else from_micros(parse_micros(time)),
        partition=record.partition,
        offset=record.offset,
        traceparent=headers.get("traceparent"),
        raw_body=record.value,
    )


class Deduplicator:
    """Remembers the last ``size`` event ids: ``deduplicator.seen(event)`` is True for a repetition.

    It lives in memory. Where a repetition after a crash matters, keep ``event.id`` with your own writes.
    """

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._ids: OrderedDict[str, None] = OrderedDict()

    def seen(self, event: Event) -> bool:
        """Whether this event's id came before; notes it."""
        if event.id in self._ids:
            return True
        self._ids[event.id] = None
        if len(self._ids) > self._size:
            self._ids.popitem(last=False)
        return False


class Subscriber:
    """An async iterator over events, or ``run(handler)``.

    With ``group``, partitions are shared among all subscribers of that group and positions are kept in Kafka;
    without, this subscriber reads every partition and keeps no position. It begins at the group's position,
    where there is none at the end; ``from_beginning`` or ``since`` (an aware datetime) change where it begins
    without a position. ``names``, ``types`` (short as in ``"created"`` or whole) and ``sessions`` filter by
    header, without parsing a body.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        group: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        names: Iterable[str] | None = None,
        types: Iterable[str] | None = None,
        sessions: Iterable[str] | None = None,
        from_beginning: bool = False,
        since: datetime | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._topic = Topics(prefix).results
        self._group = group
        self._names = None if names is None else {name.encode() for name in names}
        self._types = None if types is None else {kind.rpartition(".")[2].encode() for kind in types}
        self._sessions = None if sessions is None else {session.encode() for session in sessions}
        self._since = None if since is None else to_micros(since) // 1000
        self._consumer: AIOKafkaConsumer | None = None
        self._options = {
            "bootstrap_servers": bootstrap_servers,
            "auto_offset_reset": "earliest" if from_beginning or since is not None else "latest",
            "rebalance_timeout_ms": 60_000,
            **(options or {}),
            "group_id": group,
            "enable_auto_commit": False,
        }
        self._done: dict[TopicPartition, int] = {}
        self._committed_at = 0.0

    async def start(self) -> Self:
        """Connect and take up the position; KafkaError if the cluster can't be reached."""
        if self._consumer is not None:
            return self
        consumer = AIOKafkaConsumer(**self._options)
        try:
            await consumer.start()
            if self._group is None:
                await self._assign_all(consumer)
            else:
                consumer.subscribe([self._topic], listener=_Listener(self))
        except BaseException:
            await consumer.stop()
            raise
        self._consumer = consumer
        return self

    async def close(self) -> None:
        """Commit what is done and leave."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._commit(consumer)
            await consumer.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        await self.start()
        try:
            async for records in self._batches():
                for partition, record in records:
                    if self._wanted(record.headers):
                        yield read_event(record)
                    # Only now: asking for the next event says that this one is done with.
                    self._mark(partition, record.offset)
        finally:
            await self.close()

    async def run(
        self,
        handler: Callable[[Event], Awaitable[None]],
        *,
        concurrency: int = 16,
        retries: int = 5,
        on_failure: Callable[[Event, Exception], Awaitable[None]] | None = None,
    ) -> None:
        """Call ``handler`` with each event until cancelled.

        Up to ``concurrency`` sessions at a time, the events of one session one after the other. A handler that
        raises is tried again up to ``retries`` times, with growing pauses; after that ``on_failure`` gets the
        event, or, without it, the exception ends the run with the position before that event.
        """
        await self.start()
        slots = asyncio.Semaphore(concurrency)

        async def lane(events: list[Event]) -> None:
            for event in events:
                async with slots:
                    await _handle(event, handler, retries, on_failure)

        try:
            async for records in self._batches():
                lanes: dict[str | None, list[Event]] = {}
                for _, record in records:
                    if self._wanted(record.headers):
                        event = read_event(record)
                        lanes.setdefault(event.session_id, []).append(event)
                async with asyncio.TaskGroup() as group:
                    for events in lanes.values():
                        group.create_task(lane(events))
                for partition, record in records:
                    self._mark(partition, record.offset)
        finally:
            await self.close()

    async def _batches(self) -> AsyncIterator[list[tuple[TopicPartition, Any]]]:
        while (consumer := self._consumer) is not None:
            found = await consumer.getmany(timeout_ms=500, max_records=500)
            if found:
                yield [(partition, record) for partition, records in found.items() for record in records]
            now = asyncio.get_running_loop().time()
            if now - self._committed_at > _COMMIT_SECONDS:
                self._committed_at = now
                await self._commit(consumer)

    def _wanted(self, headers: Iterable[tuple[str, bytes]]) -> bool:
        found = dict(headers)
        kind = found.get("ce_type", b"")
        if kind == ACQUIRED.encode():
            return False
        if self._types is not None and kind.rpartition(b".")[2] not in self._types:
            return False
        if self._names is not None and found.get("ce_checkpointname") not in self._names:
            return False
        return self._sessions is None or found.get("ce_sessionid") in self._sessions

    def _mark(self, partition: TopicPartition, offset: int) -> None:
        self._done[partition] = offset + 1

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        if self._group is None or not self._done:
            return
        done, self._done = self._done, {}
        owned = consumer.assignment()
        offsets = {partition: offset for partition, offset in done.items() if partition in owned}
        if offsets:
            try:
                await consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError, KafkaError) as error:
                # The partition went to another member: it begins where the last commit was, so events repeat.
                log.info("positions were not committed, some events will come again: %r", error)

    async def _assign_all(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await consumer._client.add_topic(self._topic)
            found = consumer.partitions_for_topic(self._topic)
            if found:
                break
            await asyncio.sleep(0.1)
        partitions = [TopicPartition(self._topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        await self._begin(consumer, partitions)

    async def _begin(self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> None:
        """Where there is no committed position, start at ``since``."""
        if self._since is None:
            if self._group is None:
                for partition in partitions:
                    await consumer.position(partition)
            return
        if self._group is not None:
            partitions = [p for p in partitions if await consumer.committed(p) is None]
        for partition, found in (
            await consumer.offsets_for_times(dict.fromkeys(partitions, self._since))
        ).items():
            if found is None:
                await consumer.seek_to_end(partition)
            else:
                consumer.seek(partition, found.offset)


async def _handle(
    event: Event,
    handler: Callable[[Event], Awaitable[None]],
    retries: int,
    on_failure: Callable[[Event, Exception], Awaitable[None]] | None,
) -> None:
    wait = _FIRST_WAIT
    for attempt in range(retries + 1):
        try:
            await handler(event)
        except Exception as error:
            if attempt == retries:
                if on_failure is None:
                    raise
                await on_failure(event, error)
                return
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            return


class _Listener(ConsumerRebalanceListener):
    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        # Before the partitions go: what is done is done.
        if self._subscriber._consumer is not None:
            with suppress(KafkaError):
                await self._subscriber._commit(self._subscriber._consumer)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        consumer = self._subscriber._consumer
        if consumer is not None:
            await self._subscriber._begin(consumer, list(assigned))
