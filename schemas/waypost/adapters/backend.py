"""What the adapters share: one publisher and one reader, writes that are visible once they return, bounds.

A write returns once the publisher has it, Kafka has it, or a worker applied it. A read asks Kafka how far the log goes
and waits until Postgres has that much, or lacks no more than what this process wrote itself, which is then shown from
memory. So a read sees whatever was acknowledged before it, also on a replica. Knows no framework.
"""

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, NamedTuple, Self, TypeVar

import orjson
from typing_extensions import override

from waypost.adapters.own_writes import OwnWrite, OwnWrites
from waypost.adapters.records import (
    FULL,
    POLICY,
    SPARE,
    Grouping,
    Record,
    Row,
    divided,
    import_item,
    whole,
)
from waypost.deprecation import rename_keys, renamed_keywords
from waypost.errors import (
    AccessDeniedError,
    DeliveryError,
    PublisherClosedError,
    ReaderError,
    ReaderTimeoutError,
    ShardMapError,
    WaypostError,
)
from waypost.model.limits import dump_object
from waypost.model.times import format_micros, to_micros
from waypost.publisher.client import Publisher
from waypost.publisher.delivery import DeliveryFuture
from waypost.publisher.options import RENAMED_OPTIONS
from waypost.publisher.pending import Pending
from waypost.publisher.waiter import CommandResult
from waypost.reader.client import DEFAULT_SCHEMA, Reader
from waypost.wire.encode import checkpoint_body, create_body, import_body
from waypost.wire.event_types import EventType
from waypost.wire.topics import DEFAULT_PREFIX, CommandPosition, Topics

log = logging.getLogger("waypost")
_REMEMBERED: Final = 10_000  # sessions
_DUE_EVERY: Final = 64  # records
_AT_ONCE: Final = 8  # parts of a large record
_LOOK_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 0.5
_LOOK_AGAIN_SECONDS: Final = 10.0
_OFFSETS: Final = 1_000  # in one question
#: When a write returns: once the publisher has it, once Kafka has it, or once a worker applied it.
Durability = Literal["accepted", "logged", "applied"]
_NOT_RUNNING: Final = (
    "the event loop on which this backend was started is not running, so nothing was read or accepted: use 'with "
    "Backend(...)', which runs one in a thread of its own, or the async methods within 'async with Backend(...)'"
)
_STOPPED: Final = (
    "the event loop on which this backend was started stopped before the call was done, so a write may be stored or "
    "not: keep that loop running, or use 'with Backend(...)', which runs one in a thread of its own"
)
_T = TypeVar("_T")


class SessionFullError(WaypostError):
    """A session that holds as many records as an adapter puts into one. Nothing was added or removed."""


def checked_durability(durability: Durability) -> Durability:
    """Return ``durability``, or raise ValueError."""
    if durability not in ("accepted", "logged", "applied"):
        raise ValueError(f"durability is 'accepted', 'logged' or 'applied', not {durability!r}")
    return durability


class RejectedWriteError(WaypostError):
    """A write of an earlier call that the worker rejected, or that was lost on the way. Nothing of it is stored.

    ``session_id`` and ``code``, one of the rejection codes or ``lost``, say which and why.
    """

    def __init__(self, session_id: str, code: str, message: str) -> None:
        super().__init__(message)
        self.session_id = session_id
        self.code = code


class _Command(NamedTuple):
    kind: EventType
    body: bytes
    timestamp: datetime | None
    records: int


_POLICY_COMMAND: Final = _Command(EventType.CONFIGURE, orjson.dumps(POLICY), None, 0)


@dataclass(slots=True)
class _Known:
    """What is known of a session: how many records it held when its counter stood at ``counter``."""

    counter: int
    live: int
    last: int
    token: CommandPosition | None = None
    seen_at: float = 0.0
    blind: bool = False  # whether others may have added records since

    def at_most(self) -> int:
        """No more records than these can be there, whoever added them."""
        return self.live + self.last - self.counter


@dataclass(frozen=True, slots=True)
class Appended:
    """Numbers of the records that were added. ``due``: it is this call's turn to look after old ones."""

    numbers: list[int]
    due: bool


class Backend:
    """Connection of the adapters to Kafka and Postgres: ``async with Backend("localhost:9092", dsn) as backend: …``

    In code without an event loop, ``with Backend(…) as backend`` runs one in a thread of its own. The plain methods of
    the adapters then work from any thread.

    Args:
        bootstrap_servers: Addresses of brokers, as ``host:port``, separated by commas.
        dsn: The address of the database, or of all its shards.
        topic_prefix: Prefix of the two topics.
        schema: Name of the schema in Postgres.
        timeout: Seconds that a write waits for its result, and a read for this process's own writes. After that, a
            write raises ResultTimeoutError: it was accepted and may still be applied.
        publisher_options: Options of :class:`waypost.Publisher`, such as ``kafka_options`` for TLS and SASL.
        reader_options: Options of :class:`waypost.Reader`.
    """

    @renamed_keywords(prefix="topic_prefix")
    def __init__(
        self,
        bootstrap_servers: str,
        dsn: str | Sequence[str],
        *,
        topic_prefix: str = DEFAULT_PREFIX,
        schema: str = DEFAULT_SCHEMA,
        timeout: float = 30,
        publisher_options: Mapping[str, Any] | None = None,
        reader_options: Mapping[str, Any] | None = None,
    ) -> None:
        options = dict(publisher_options or {})
        rename_keys("publisher_options", options, RENAMED_OPTIONS, 2)
        self._make_publisher: Callable[[], Publisher] = lambda: Publisher(
            bootstrap_servers, topic_prefix=topic_prefix, source="/waypost/adapter", **options
        )
        self._make_reader: Callable[[], Reader] = lambda: Reader(
            dsn,
            schema=schema,
            **{
                "bootstrap_servers": bootstrap_servers,
                "topic_prefix": topic_prefix,
                "kafka_options": options.get("kafka_options"),
                **(reader_options or {}),
            },
        )
        self._place = f"{Topics(topic_prefix).commands!r} at {bootstrap_servers}"
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looks: dict[str, asyncio.Lock] = {}
        self._own = OwnWrites()
        self._rejected: dict[str, RejectedWriteError] = {}
        self._settling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._tidying: dict[str, asyncio.Task[None]] = {}
        self.timeout = timeout

    @override
    def __repr__(self) -> str:
        return f"<Backend of {self._place}: {'new or closed' if self._loop is None else 'open'}>"

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._publisher = await self._make_publisher().start()
        self._reader = self._make_reader()
        barrier = self._reader._barrier
        if barrier is None:
            raise ValueError("reader_options can't set bootstrap_servers to None")
        self._barrier = barrier
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        background = {*self._tidying.values(), *([self._settling] if self._settling is not None else [])}
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        await self._publisher.close()
        await self._reader.close()

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="waypost-adapter", daemon=True)
        self._thread.start()
        self._loop = loop
        return self.run(self.__aenter__())

    def __exit__(self, *_: object) -> None:
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None and os.getpid() == self._pid:
            self.run(self.__aexit__())
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            self._thread = None

    # From any thread, from any loop.

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on this backend's event loop, and wait for it.

        Raises:
            RuntimeError: This is the thread of that event loop.
            PublisherClosedError: That event loop does not run, or belongs to the parent process.
        """
        loop = self._living(call)
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is loop:
            call.close()
            raise RuntimeError(
                "a plain method was called on the event loop of its own backend, which it would stop: use the "
                "async method (ainvoke, aget_tuple, …), or call it from another thread"
            )
        if not loop.is_running():
            call.close()
            raise PublisherClosedError(_NOT_RUNNING)
        waited = asyncio.run_coroutine_threadsafe(call, loop)
        while True:
            try:
                return waited.result(_LOOK_SECONDS)
            except TimeoutError:
                if waited.done():
                    return waited.result()  # the call's own time-out
                if not loop.is_running():
                    waited.cancel()
                    raise PublisherClosedError(_STOPPED) from None

    async def join(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Await a coroutine on this backend's event loop, from any event loop."""
        loop = self._living(call)
        if asyncio.get_running_loop() is loop:
            return await call
        if not loop.is_running():
            call.close()
            raise PublisherClosedError(_NOT_RUNNING)
        waited = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, loop))
        try:
            while not (await asyncio.wait({waited}, timeout=_LOOK_SECONDS))[0]:
                if not loop.is_running():
                    raise PublisherClosedError(_STOPPED)
        except BaseException:
            waited.cancel()
            raise
        return waited.result()

    def _living(self, call: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        if self._loop is not None and os.getpid() != self._pid:
            call.close()
            raise PublisherClosedError(
                "this backend was started before a fork and belongs to the parent process, so nothing was read or "
                "accepted: make one in this process"
            )
        if self._loop is None or self._loop.is_closed():
            call.close()
            raise PublisherClosedError(
                "the backend is closed or was not started, so nothing was read or accepted: use "
                "'async with Backend(...)' or 'with Backend(...)'"
            )
        return self._loop

    # Writes.

    def tidy(self, session_id: str, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a clean-up of a session in the background, unless one is under way. Its failure is logged."""
        if session_id not in self._tidying:
            task = asyncio.get_running_loop().create_task(self._tidied(session_id, clean_up))
            self._tidying[session_id] = task
            task.add_done_callback(lambda _: self._tidying.pop(session_id))

    async def _tidied(self, session_id: str, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await clean_up()
        except Exception as error:
            log.warning(
                "Old records of %r could not be removed now. Nothing else was, and it is tried again later: %s",
                session_id,
                error,
            )

    async def tidied(self, session_id: str) -> bool:
        """Wait for a clean-up in the background, and tell whether there was one."""
        if (task := self._tidying.get(session_id)) is None:
            return False
        await asyncio.wait({task})
        return True

    async def append(
        self,
        session_id: str,
        records: Sequence[Record],
        timestamp: datetime | None = None,
        *,
        durability: Durability = "applied",
        spare: bool = False,
        advice: str = "Clear it",
    ) -> Appended:
        """Add records, which reads see once this returns.

        One record is one create. Several are one import, all of them or none, as long as they have less than 880 KB.
        ``timestamp`` is when a single record was taken, now by default. ``spare`` records may use the room that a full
        session keeps for cleaning it up. ``advice`` is what to do if it is full.

        Raises:
            SessionFullError: The records may not fit.
            RejectedWriteError: The worker rejected an earlier write to the session. Nothing was added now.
            ResultTimeoutError: Kafka or the worker did not answer in time. The records may still be added.
        """
        self._raise_rejected(session_id)
        sent = [divided(record) for record in records]
        parts = [part for each in sent for part in each.parts]
        mains = [each.main for each in sent]
        await self._make_room(session_id, len(sent) + len(parts), FULL + SPARE if spare else FULL, advice)
        known = self._known[session_id]
        before = known.last
        if durability != "applied":
            known.last += len(sent) + len(parts)  # at once, so that calls meanwhile count them
            known.blind = True
            due = before // _DUE_EVERY != known.last // _DUE_EVERY
            commands = [self._create_command(part, None) for part in parts] + self._commands(mains, timestamp)
            await self._publish(session_id, commands, records, durability)
            return Appended([], due)
        numbers: list[int] = []
        for start in range(0, len(parts), _AT_ONCE):
            creating = [self._create(session_id, part, None) for part in parts[start : start + _AT_ONCE]]
            numbers += await asyncio.gather(*creating)
        if len(mains) == 1:
            numbers.append(await self._create(session_id, mains[0], timestamp))
        else:
            for command in self._commands(mains, timestamp):
                result = (await self._wait(session_id, command.kind, command.body)).raise_if_rejected()
                numbers += self._numbered(session_id, result.body["ids"])
        return Appended(numbers, before // _DUE_EVERY != max(before, *numbers) // _DUE_EVERY)

    def _create_command(self, record: Record, timestamp: datetime | None) -> _Command:
        return _Command(
            EventType.CREATE, create_body(record.name, record.data, record.metadata), timestamp, records=1
        )

    def _commands(self, records: Sequence[Record], timestamp: datetime | None) -> list[_Command]:
        """Return one create, or as few imports as possible."""
        if len(records) == 1:
            return [self._create_command(records[0], timestamp)]
        now = format_micros(to_micros(timestamp or datetime.now().astimezone()))
        groups = Grouping()
        full: list[list[bytes]] = []
        for record in records:
            item = import_item(record.name, dump_object(record.data, "data"), record.metadata, now)
            if group := groups.add(item):
                full.append(group)
        return [
            _Command(EventType.IMPORT, import_body(group), None, records=len(group))
            for group in [*full, groups.group]
        ]

    async def _publish(
        self,
        session_id: str,
        commands: Sequence[_Command],
        records: Sequence[Record],
        durability: Durability,
    ) -> None:
        """Publish commands that add records: parts first, then the records in their order."""
        landings: list[tuple[Pending, DeliveryFuture]] = []
        rows = self._own_rows(records)
        parts = sum(command.records for command in commands) - len(rows)
        for index, command in enumerate(commands):
            if index < parts and index % _AT_ONCE == _AT_ONCE - 1:
                await self._publisher.drain()
            added = [] if index < parts else [rows.pop(0) for _ in range(command.records)]
            landings.append(self._publish_one(session_id, command, added))
        if durability == "logged":
            try:
                await self._until_landed(landings)
            except DeliveryError:
                self._rejected.pop(session_id, None)  # it is raised now
                raise

    def _publish_one(
        self, session_id: str, command: _Command, rows: Sequence[Row]
    ) -> tuple[Pending, DeliveryFuture]:
        """Publish a command that changes nothing but to add these records."""
        pending, landing = self._publisher._publish_tracked(
            command.kind, session_id, command.body, command.timestamp
        )
        write = self._own.add(session_id, rows, command.records)
        write.landing = landing
        landing.add_done_callback(partial(self._landed, write))
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle_all())
        return pending, landing

    async def _until_landed(self, landings: Sequence[tuple[Pending, DeliveryFuture]]) -> None:
        limit = asyncio.timeout(self.timeout)
        try:
            async with limit:
                for _, landing in landings:
                    await asyncio.shield(landing)
        except TimeoutError:
            if not limit.expired():
                raise
            pending, landing = next((each for each in landings if not each[1].done()), landings[-1])
            raise self._publisher._undelivered_error(pending, landing, f"within {self.timeout:g} s") from None

    def _own_rows(self, records: Sequence[Record]) -> list[Row]:
        now = datetime.now(UTC)
        return [
            Row(self._own.next_number(), each.name, dump_object(each.data, "data"), each.metadata, now)
            for each in records
        ]

    def _landed(self, write: OwnWrite, landing: DeliveryFuture) -> None:
        """Note where a write is in Kafka, or that it never will be there."""
        if landing.cancelled():
            return
        if (error := landing.exception()) is None:
            partition, offset = landing.result()
            if offset < 0:  # Kafka knows no longer where
                self._own.drop(write)
            else:
                self._own.landed(write, partition, offset)
        else:
            self._own.drop(write)
            log.error("A write to %r was lost: %s", write.session_id, error)
            self._rejected[write.session_id] = RejectedWriteError(
                write.session_id, "lost", f"An earlier write to {write.session_id!r} was lost: {error}"
            )

    def is_sending(self) -> bool:
        """Tell whether Kafka takes what this process writes, as far as it knows."""
        return self._publisher._sending()

    def _raise_rejected(self, session_id: str) -> None:
        if self._rejected and (error := self._rejected.pop(session_id, None)) is not None:
            raise error

    async def _settle_all(self) -> None:
        """Find out in the background what became of writes that nobody waits for."""
        while self._own:
            await asyncio.sleep(_SETTLE_SECONDS)
            try:
                for partition in self._own.partitions():
                    await self._settle(partition, await self._barrier.position_of(partition))
            except (ReaderError, AccessDeniedError, ShardMapError) as error:
                log.debug("it is not known what became of writes: %r", error)

    async def _settle(self, partition: int, position: int) -> None:
        passed = self._own.passed(partition, position)
        for start in range(0, len(passed), _OFFSETS):
            some = passed[start : start + _OFFSETS]
            by_offset = {write.offset: write for write in some}
            pool = await self._reader._shards.of_partition(partition)
            for row in await pool.fetch("adapters/rejected", partition, list(by_offset)):
                if not self._own.is_open(by_offset[row["offset"]]):
                    continue  # it was told while this looked
                session_id = by_offset[row["offset"]].session_id
                error = RejectedWriteError(
                    session_id,
                    row["code"],
                    f"The worker rejected an earlier write to {session_id!r}, so nothing of it is stored: "
                    f"{row['code']}: {row['message']}",
                )
                log.error("%s", error)
                self._rejected[session_id] = error
            for write in some:
                self._own.drop(write)

    async def delete(self, session_id: str, numbers: Sequence[int]) -> bool:
        """Delete records in this order, and tell whether the last one was still there."""
        for number in numbers[:-1]:
            await self._publisher.drain()
            self._publisher.delete(session_id, f"{session_id}:{number}")
        body = checkpoint_body(f"{session_id}:{numbers[-1]}")
        return (await self._wait(session_id, EventType.DELETE, body)).type == EventType.DELETED

    async def clear(self, session_id: str) -> None:
        """Delete all records of a session. One that does not exist is not created."""
        await self.settled(session_id)
        if await self._reader.session_info(session_id) is not None:
            await self._wait(session_id, EventType.CLEAR, b"{}")

    async def copy(
        self, source: str, target: str, remade: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Copy all records of a session, as of one moment, to another one. ``remade`` changes their metadata."""
        await self.settled(source)
        info = await self._reader.session_info(source)
        if info is None or info.checkpoint_count == 0:
            return
        await self._make_room(target, info.checkpoint_count, FULL, "Copy to another one, or clear it")
        async with self._reader.snapshot() as snapshot:
            groups = Grouping()
            async with aclosing(snapshot.rows("adapters/everything", source)) as rows:
                async for row in rows:
                    taken_at = format_micros(to_micros(row["taken_at"]))
                    metadata = remade(orjson.loads(row["metadata"]))
                    item = import_item(row["name"], bytes(row["data"]), metadata, taken_at)
                    if full := groups.add(item):
                        await self._import(target, full)
        await self._import(target, groups.group)

    # Reads.

    async def own_rows(self, session_id: str, *, stale_ok: bool = False) -> list[Row]:
        """Wait until a read of Postgres, with the rows returned here, sees all that was acknowledged before this call.

        These rows are records that this process added and Postgres may lack, oldest first. They are the newest of the
        session. With ``stale_ok``, only this process's own writes are sure to be seen.

        Raises:
            KafkaUnavailableError: Kafka did not say how far its log goes.
            ReaderTimeoutError: Postgres did not come that far in time.
            RejectedWriteError: The worker rejected an earlier write to the session.
        """
        self._raise_rejected(session_id)
        await self.caught_up(session_id)
        if stale_ok:
            if not self._own.of_session(session_id):
                return []
            partition = await self._barrier.partition_of(session_id)
            end = self._own.end_of_unkept(session_id)
            position = await self._barrier.applied(partition, end, self.timeout)
        else:
            partition = await self._barrier.partition_of(session_id)
            # At a position that was read earlier, a read later finds that much or more.
            end, position = await asyncio.gather(
                self._barrier.end_of(partition), self._barrier.position_of(partition)
            )
            if position < end and not self._own.cover(partition, position, end):
                position = await self._barrier.applied(partition, end, self.timeout)
        await self._settle_session(session_id, partition, position)
        return [row for write in self._own.unapplied(session_id, position) for row in write.rows or ()]

    async def settled(self, session_id: str, *, stale_ok: bool = False) -> None:
        """Wait until a read of Postgres alone sees all that was acknowledged before this call."""
        self._raise_rejected(session_id)
        await self.caught_up(session_id)
        own = self._own.of_session(session_id)
        if stale_ok and not own:
            return
        try:
            async with asyncio.timeout(self.timeout):
                for landing in [write.landing for write in own if write.landing is not None]:
                    await asyncio.wait({landing})
        except TimeoutError:
            raise ReaderTimeoutError(
                f"Kafka does not have this process's own writes to {session_id!r} yet, after {self.timeout:g} s. "
                "Nothing was read, and nothing is lost."
            ) from None
        partition = await self._barrier.partition_of(session_id)
        if stale_ok:
            end = max((write.offset for write in own if write.offset is not None), default=-1) + 1
        else:
            end = await self._barrier.end_of(partition)
        position = await self._barrier.applied(partition, end, self.timeout)
        await self._settle_session(session_id, partition, position)

    async def all_settled(self) -> None:
        """Wait until a read of any session sees all that was acknowledged before this call."""
        await self._publisher.flush(self.timeout)
        for partition in range(await self._barrier.partition_count()):
            end = await self._barrier.end_of(partition)
            await self._barrier.applied(partition, end, self.timeout)

    async def _settle_session(self, session_id: str, partition: int, position: int) -> None:
        if any(
            write.offset is not None and write.offset < position for write in self._own.of_session(session_id)
        ):
            await self._settle(partition, position)
            self._raise_rejected(session_id)

    async def rows(
        self, session_id: str, statement: str, *arguments: Any, stale_ok: bool = False
    ) -> list[Row]:
        """Return the rows of one of the adapters' statements, with the parts of large ones joined."""
        await self.settled(session_id, stale_ok=stale_ok)
        return await self.stored(session_id, statement, *arguments)

    async def stored(self, session_id: str, statement: str, *arguments: Any) -> list[Row]:
        """Return the same as :meth:`rows`, of what is in Postgres by now."""
        rows = await self._fetch(statement, session_id, *arguments)
        batches = sorted({row.batch for row in rows if row.batch is not None and row.raw})
        if not batches:
            return rows
        return whole(rows, await self._fetch("parts", session_id, batches))

    async def values(self, session_id: str, statement: str, *arguments: Any) -> list[Any]:
        """Return the first column of one of the adapters' statements."""
        await self.settled(session_id)
        return [row[0] for row in await self._reader._fetch(f"adapters/{statement}", session_id, *arguments)]

    async def among(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the first column of a statement that is about many sessions."""
        await self.all_settled()
        return [row[0] for row in await self._reader._fetch_all(f"adapters/{statement}", *arguments)]

    async def sessions(self, prefix: str) -> AsyncIterator[str]:
        """Yield the ids of sessions that have records and start with ``prefix``."""
        await self.all_settled()
        cursor = None
        while True:
            page = await self._reader.sessions(prefix=prefix, cursor=cursor)
            for info in page:
                if info.checkpoint_count:
                    yield info.session_id
            if (cursor := page.cursor) is None:
                return

    async def caught_up(self, session_id: str) -> None:
        """Wait until this process's own last write to the session can be read."""
        known = self._known.get(session_id)
        if known is not None and known.token is not None:
            await self._reader.wait_for(known.token, self.timeout)

    async def _fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Row]:
        return [
            Row(
                row["number"],
                row["name"],
                bytes(row["data"]),
                orjson.loads(row["metadata"]),
                row["recorded_at"],
                row["chosen"],
            )
            for row in await self._reader._fetch(f"adapters/{statement}", session_id, *arguments)
        ]

    async def _make_room(self, session_id: str, count: int, full: int, advice: str) -> None:
        if self._has_room(session_id, count, full):
            return
        # Calls at the same time need one look, and one policy.
        lock = self._looks.setdefault(session_id, asyncio.Lock())
        try:
            async with lock:
                if not self._has_room(session_id, count, full):
                    live = await self._look(session_id)
                    if live + count > full and self._own.of_session(session_id):
                        await self.settled(
                            session_id
                        )  # what is both applied and not settled was counted twice
                        live = await self._look(session_id)
        finally:
            if not lock.locked():
                self._looks.pop(session_id, None)
        if not self._has_room(session_id, count, full):
            raise SessionFullError(
                f"the session {session_id!r} holds {self._known[session_id].at_most()} records, and {count} more would "
                f"exceed {full}. Nothing was added or removed. {advice}"
            )

    def _has_room(self, session_id: str, count: int, full: int) -> bool:
        """Tell whether records surely fit, by what is known of a session."""
        known = self._known.get(session_id)
        if known is None or known.at_most() + count > full:
            return False
        if known.blind and asyncio.get_running_loop().time() - known.seen_at >= _LOOK_AGAIN_SECONDS:
            return False
        self._known.move_to_end(session_id)
        return True

    async def _look(self, session_id: str) -> int:
        """See how many records a session holds, its own unapplied ones included, and that nothing leaves it."""
        await self.caught_up(session_id)
        now = asyncio.get_running_loop().time()
        info = await self._reader.session_info(session_id)
        if info is None or info.policy is None or any(info.policy.get(k) != v for k, v in POLICY.items()):
            self._publish_one(
                session_id, _POLICY_COMMAND, []
            )  # before the records, so nothing leaves meanwhile
        counter, live = (0, 0) if info is None else (info.last_number, info.checkpoint_count)
        if (known := self._known.get(session_id)) is None:
            known = self._known[session_id] = _Known(counter, live, counter)
        # What others add shows in the numbers of this process's own records, but only if it waits for these.
        unapplied = sum(write.records for write in self._own.of_session(session_id))
        known.counter, known.live, known.seen_at, known.blind = counter, live, now, False
        known.last = counter + unapplied if unapplied else max(counter, known.last)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known.at_most()

    async def _create(self, session_id: str, record: Record, timestamp: datetime | None) -> int:
        result = await self._publisher.create_and_wait(
            session_id,
            record.name,
            record.data,
            record.metadata,
            timestamp=timestamp,
            timeout=self.timeout,
        )
        self._note(session_id, result)
        return self._numbered(session_id, [result.body["checkpoint"]["id"]])[0]

    async def _import(self, session_id: str, group: list[bytes]) -> list[int]:
        result = await self._wait(session_id, EventType.IMPORT, import_body(group))
        return self._numbered(session_id, result.raise_if_rejected().body["ids"])

    async def _wait(self, session_id: str, kind: str, body: bytes) -> CommandResult:
        result = await self._publisher.publish_and_wait(session_id, kind, body, timeout=self.timeout)
        self._note(session_id, result)
        return result

    def _note(self, session_id: str, result: CommandResult) -> None:
        if (known := self._known.get(session_id)) is None:
            known = self._known[session_id] = _Known(0, FULL, 0)  # as good as full, until it is looked at
        known.token = max(known.token or result.token, result.token)
        if result.type in (EventType.CREATED, EventType.IMPORTED) and result.body["removed"]:
            raise SessionFullError(
                f"the session {session_id!r} has lost {len(result.body['removed'])} records to its retention, "
                f"the first {result.body['removed'][0]}: its policy was changed, or far too many processes add "
                "to it at once"
            )

    def _numbered(self, session_id: str, ids: Iterable[str]) -> list[int]:
        numbers = [int(each.rpartition(":")[2]) for each in ids]
        known = self._known[session_id]
        known.last = max(known.last, *numbers)
        return numbers
