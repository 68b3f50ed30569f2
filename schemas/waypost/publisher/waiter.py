"""Waiting for the results of commands that this process publishes: one consumer for all who wait.

A command is published first, and its result is searched afterward, so that accepting it never depends on the results
topic. Since results of a partition are in command order, a check of where reading began shows whether a result may be
before that; reading then starts again further back. Only partitions with a waiting caller are read, and a little
longer, so that the next caller finds reading under way.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from waypost.deprecation import deprecated
from waypost.errors import InvalidCommandError, Reached, ResultTimeoutError
from waypost.kafka.partitions import partitions_of
from waypost.kafka.quiet import quiet
from waypost.kafka.short_reads import PASSING, access_options
from waypost.kafka.topic_reader import TopicReader
from waypost.publisher.pending import Pending
from waypost.publisher.removals import RemovalLog
from waypost.wire.event_types import EventType
from waypost.wire.id_lists import expand_ids
from waypost.wire.topics import CommandPosition, Topics

if TYPE_CHECKING:
    from waypost.publisher.sender import Sender


def result_timeout_error(
    pending: Pending,
    landing: "asyncio.Future[tuple[int, int]]",
    sender: "Sender | None",
    ended: str,
    unreadable: str | None,
) -> ResultTimeoutError:
    """Return the error for a command without a result until ``ended``, such as ``within 10 s``.

    ``landing`` has partition and offset once Kafka has the command. ``unreadable`` is why results can't be read.
    """
    kept = " and in the spool" if pending.home is not None else ""
    reached: Reached
    partition = offset = None
    if landing.done():
        reached = "acknowledged"
        partition, offset = landing.result()
        asked = "is a worker running?" if unreadable is None else f"results can't be read: {unreadable}"
        known = f"Kafka has it, at offset {offset} of partition {partition}; {asked}"
    elif sender is not None and (partition := sender.where(pending)) is not None:
        reached = "sent"
        known = (
            f"it was sent to partition {partition}, and Kafka has not answered for "
            f"{sender.waiting_seconds():.1f} s; it is still in this publisher's buffer{kept}"
        )
    else:
        reached = "waiting"
        tries = pending.tries - (sender is not None and sender.being_gathered(pending))
        before = "was sent before and will be sent again" if tries else "will be sent"
        error = None if sender is None else sender.last_error
        known = f"it is still in this publisher's buffer{kept} and {before} (last error: {error})"
    return ResultTimeoutError(
        pending.command_id,
        f"no result of command {pending.command_id} {ended}. It was accepted, {known}. Publishing it "
        "again with this command id is safe",
        reached,
        partition,
        offset,
    )


log = logging.getLogger("waypost")
_LOOK_BACK: Final = 4  # records before the end, where reading begins
_LINGER_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.25
_WAIT_SECONDS: Final = 0.2
# A partition that somebody begins to wait for must not wait for the long poll of another.
_LONG_POLL_MS: Final = 50


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Result of a command: its type, such as ``waypost.checkpoint.created``, and its parsed body."""

    type: str
    body: dict[str, Any]

    def __repr__(self) -> str:
        about = (
            f"{self.body['code']!r}: {self.body['message']}"
            if self.type == EventType.REJECTED
            else self.checkpoint_id
        )
        return f"<CommandResult {self.type!r} of {about} at {self.token.partition}/{self.token.offset}>"

    @property
    def token(self) -> CommandPosition:
        """Position of the command, for :meth:`waypost.Reader.wait_for`."""
        command = self.body["command"]
        return CommandPosition(command["partition"], command["offset"])

    @property
    def checkpoint_id(self) -> str | None:
        """Id of the checkpoint that the command was about, None if there is none."""
        checkpoint = self.body.get("checkpoint")
        return checkpoint["id"] if checkpoint else self.body.get("checkpoint_id")

    def raise_if_rejected(self) -> Self:
        """Return this result.

        Raises:
            InvalidCommandError: The worker rejected the command; with its code and message.
        """
        if self.type == EventType.REJECTED:
            raise InvalidCommandError(self.body["code"], self.body["message"])
        return self

    @deprecated("raise_if_rejected()")
    def accepted(self) -> Self:
        """Call :meth:`raise_if_rejected`, the new name."""
        return self.raise_if_rejected()


@dataclass(slots=True)
class _Track:
    """Reading of one results partition. ``wanted`` are command offsets by command id."""

    partition: TopicPartition
    log_start: int
    start: int  # where reading began
    step: int = _LOOK_BACK
    first: int | None = None  # command offset of the first result read since
    wanted: dict[str, int] = field(default_factory=dict)
    idle_since: float = 0.0

    def may_lie_before(self) -> bool:
        """Return whether a wanted result may be before the start of reading."""
        if self.start <= self.log_start or not self.wanted:
            return False
        return self.first is None or self.first > min(self.wanted.values())


class _Wait:
    """Somebody who waits for one command. Its id alone does not tell its result: the id of an earlier try has
    that try's result as well, which may be read on the way, and before it is known where this command landed.
    """

    def __init__(self) -> None:
        self.result: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._offset: int | None = None
        self._seen: dict[int, CommandResult] = {}

    def landed(self, offset: int) -> None:
        """The command is at this offset of its partition."""
        self._offset = offset
        if offset in self._seen:
            self.offer(offset, self._seen[offset])

    def offer(self, offset: int, result: CommandResult) -> None:
        """A result of this command id, for the command at ``offset``."""
        if self._offset is None:
            self._seen[offset] = result
        elif offset == self._offset and not self.result.done():
            self.result.set_result(result)


class ResultWaiter:
    """Passes each result to the caller that waits for its command id."""

    def __init__(self, topics: Topics, options: Mapping[str, Any]) -> None:
        self._topic = topics.results
        self._options = access_options(options)
        self._waiting: dict[str, _Wait] = {}
        self._keys: Counter[bytes] = Counter()
        self._tracks: dict[int, _Track] = {}
        self._reader: TopicReader | None = None
        self._task: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._removals = RemovalLog()
        #: Why results can't be read just now.
        self.last_error: str | None = None

    async def wait(
        self, command_id: str, session_id: str, landing: "asyncio.Future[tuple[int, int]]"
    ) -> CommandResult:
        """The result of a command that is on its way; ``landing`` gets its partition and offset.

        Waits without limit. Raises what ``landing`` raises.
        """
        waiting = self._waiting[command_id] = _Wait()
        result = waiting.result
        key = session_id.encode()
        self._keys[key] += 1
        attending = asyncio.create_task(self._attend(command_id, waiting, landing))
        try:
            either: set[asyncio.Future[Any]] = {result, attending}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                attending.result()
            found = await result
            self._removals.note(session_id, found.type, found.body)
            return found
        finally:
            attending.cancel()
            await asyncio.wait({attending})
            del self._waiting[command_id]
            self._keys -= Counter([key])
            self._release(command_id)

    async def stop(self) -> None:
        """End. Callers that still wait get a TimeoutError."""
        for waiting in self._waiting.values():
            if not waiting.result.done():
                waiting.result.set_exception(TimeoutError("the publisher was closed"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _attend(
        self, command_id: str, waiting: _Wait, landing: "asyncio.Future[tuple[int, int]]"
    ) -> None:
        """See to it that the partition of a command is read from where its result may be."""
        partition, offset = await asyncio.shield(landing)
        waiting.landed(offset)
        while True:
            try:
                async with self._opening:
                    if partition not in self._tracks:
                        self._tracks[partition] = await self._open(partition)
                    self._tracks[partition].wanted[command_id] = offset
                return
            except PASSING as error:
                self.last_error = str(error) or type(error).__name__
                log.debug("results can't be read yet: %r", error)
                await asyncio.sleep(_WAIT_SECONDS)

    def _release(self, command_id: str) -> None:
        for track in self._tracks.values():
            if track.wanted.pop(command_id, None) is not None and not track.wanted:
                track.idle_since = asyncio.get_running_loop().time()

    async def _open(self, number: int) -> _Track:
        reader = await self._connected()
        partition = TopicPartition(self._topic, number)
        starts = await reader.first_offsets([partition])
        ends = await reader.end_offsets([partition])
        start = max(starts[partition], ends[partition] - _LOOK_BACK)
        track = _Track(partition, starts[partition], start)
        reader.seek(partition, track.start)
        return track

    async def _connected(self) -> TopicReader:
        if self._reader is None:
            with quiet():
                reader = TopicReader(self._topic, {**self._options, "fetch_max_wait_ms": _LONG_POLL_MS})
            try:
                with quiet():
                    await reader.start()
                await partitions_of(reader.connections, self._topic)
            except BaseException:
                await reader.stop()
                raise
            self._reader = reader
            self._task = asyncio.create_task(self._read(reader), name="waypost-results")
        return self._reader

    async def _read(self, reader: TopicReader) -> None:
        """Read as long as a partition is wanted, or was a moment ago; then give the connection up."""
        try:
            while self._waiting or self._tracks:
                try:
                    found = await reader.take(_POLL_SECONDS)
                except KafkaError as error:
                    self.last_error = str(error)
                    log.debug("results can't be read just now: %r", error)
                    await asyncio.sleep(_WAIT_SECONDS)
                    continue
                self.last_error = None
                for partition, records in found.items():
                    if (track := self._tracks.get(partition.partition)) is not None:
                        self._look(reader, track, records)
                self._let_idle_go(reader)
        finally:
            self._reader = None
            self._tracks.clear()
            await reader.stop()

    def _look(self, reader: TopicReader, track: _Track, records: list[Any]) -> None:
        for record in records:
            if track.first is not None and record.key not in self._keys:
                continue
            body = _result_body(record.value)
            if body is None:
                continue
            if track.first is None:
                track.first = body["command"]["offset"]
            waiting = self._waiting.get(body["command"]["id"])
            kind = dict(record.headers).get("ce_type")
            if waiting is not None and kind is not None:
                result = CommandResult(kind.decode(errors="replace"), body)
                waiting.offer(body["command"]["offset"], result)
        if track.may_lie_before():
            track.step *= 4
            track.start = max(track.log_start, track.start - track.step)
            track.first = None
            reader.seek(track.partition, track.start)

    def _let_idle_go(self, reader: TopicReader) -> None:
        now = asyncio.get_running_loop().time()
        for number, track in list(self._tracks.items()):
            if not track.wanted and now - track.idle_since > _LINGER_SECONDS:
                reader.leave_out(track.partition)
                del self._tracks[number]


def _result_body(value: bytes | None) -> dict[str, Any] | None:
    """Return the body of a command's result; None for an owner's fence record and for records that are not results."""
    try:
        body = orjson.loads(value or b"")
        command = body["command"]
        # Rejections of what has no readable id are results, too.
        if not isinstance(command["id"], str | None) or not isinstance(command["offset"], int):
            return None
        return expand_ids(body)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
