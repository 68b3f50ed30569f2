"""What the adapters share: one publisher and one reader, writes that are visible once they return, bounds.

A write is published, and its result awaited; results come after the commit. A read waits for this process's own
last write to that session first, so it sees it on a replica too. Knows no framework.
"""

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import orjson
from typing_extensions import override

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
from waypost.errors import PublisherClosedError, WaypostError
from waypost.model.limits import dump_object
from waypost.model.times import format_micros, to_micros
from waypost.publisher.client import Publisher
from waypost.publisher.options import RENAMED_OPTIONS
from waypost.publisher.waiter import CommandResult
from waypost.reader.client import DEFAULT_SCHEMA, Reader
from waypost.wire.encode import checkpoint_body, import_body
from waypost.wire.event_types import EventType
from waypost.wire.topics import DEFAULT_PREFIX, CommandPosition, Topics

log = logging.getLogger("waypost")
_REMEMBERED: Final = 10_000  # sessions
_DUE_EVERY: Final = 64  # records
_AT_ONCE: Final = 8  # parts of a large record
_LOOK_SECONDS: Final = 1.0
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


@dataclass(slots=True)
class _Known:
    """What is known of a session: how many records it held when its counter stood at ``counter``."""

    counter: int
    live: int
    last: int
    token: CommandPosition | None = None

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
        self._make_reader: Callable[[], Reader] = lambda: Reader(dsn, schema=schema, **(reader_options or {}))
        self._place = f"{Topics(topic_prefix).commands!r} at {bootstrap_servers}"
        self._known: OrderedDict[str, _Known] = OrderedDict()
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
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop = None
        if tidying := set(self._tidying.values()):
            for task in tidying:
                task.cancel()
            await asyncio.wait(tidying)
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
        spare: bool = False,
        advice: str = "Clear it",
    ) -> Appended:
        """Add records, which are visible once this returns.

        One record is one create. Several are one import, all of them or none, as long as they have less than 880 KB.
        ``timestamp`` is when a single record was taken, now by default. ``spare`` records may use the room that a full
        session keeps for cleaning it up. ``advice`` is what to do if it is full.

        Raises:
            SessionFullError: The records may not fit.
        """
        sent = [divided(record) for record in records]
        parts = [part for each in sent for part in each.parts]
        await self._make_room(session_id, len(sent) + len(parts), FULL + SPARE if spare else FULL, advice)
        numbers: list[int] = []
        for start in range(0, len(parts), _AT_ONCE):
            creating = [self._create(session_id, part, None) for part in parts[start : start + _AT_ONCE]]
            numbers += await asyncio.gather(*creating)
        mains = [each.main for each in sent]
        if len(mains) == 1:
            numbers.append(await self._create(session_id, mains[0], timestamp))
        else:
            now = format_micros(to_micros(timestamp or datetime.now().astimezone()))
            items = [
                import_item(main.name, dump_object(main.data, "data"), main.metadata, now) for main in mains
            ]
            groups = Grouping()
            for item in items:
                if full := groups.add(item):
                    numbers += await self._import(session_id, full)
            numbers += await self._import(session_id, groups.group)
        return Appended(numbers, any(number % _DUE_EVERY == 0 for number in numbers))

    async def delete(self, session_id: str, numbers: Sequence[int]) -> bool:
        """Delete records in this order, and tell whether the last one was still there."""
        for number in numbers[:-1]:
            await self._publisher.drain()
            self._publisher.delete(session_id, f"{session_id}:{number}")
        body = checkpoint_body(f"{session_id}:{numbers[-1]}")
        return (await self._wait(session_id, EventType.DELETE, body)).type == EventType.DELETED

    async def clear(self, session_id: str) -> None:
        """Delete all records of a session. One that does not exist is not created."""
        if await self._reader.session_info(session_id) is not None:
            await self._wait(session_id, EventType.CLEAR, b"{}")

    async def copy(
        self, source: str, target: str, remade: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Copy all records of a session, as of one moment, to another one. ``remade`` changes their metadata."""
        await self.caught_up(source)
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

    async def rows(self, session_id: str, statement: str, *arguments: Any) -> list[Row]:
        """Return the rows of one of the adapters' statements, with the parts of large ones joined."""
        await self.caught_up(session_id)
        rows = await self._fetch(statement, session_id, *arguments)
        batches = sorted({row.batch for row in rows if row.batch is not None and row.raw})
        if not batches:
            return rows
        return whole(rows, await self._fetch("parts", session_id, batches))

    async def values(self, session_id: str, statement: str, *arguments: Any) -> list[Any]:
        """Return the first column of one of the adapters' statements."""
        await self.caught_up(session_id)
        return [row[0] for row in await self._reader._fetch(f"adapters/{statement}", session_id, *arguments)]

    async def among(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the first column of a statement that is about many sessions."""
        return [row[0] for row in await self._reader._fetch_all(f"adapters/{statement}", *arguments)]

    async def sessions(self, prefix: str) -> AsyncIterator[str]:
        """Yield the ids of sessions that have records and start with ``prefix``."""
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
        known = self._known.get(session_id)
        if known is not None and known.at_most() + count <= full:
            self._known.move_to_end(session_id)
            return
        await self.caught_up(session_id)
        info = await self._reader.session_info(session_id)
        if info is None or info.policy is None or any(info.policy.get(k) != v for k, v in POLICY.items()):
            self._publisher.configure(session_id, **POLICY)  # before the records, so nothing leaves meanwhile
        counter, live = (0, 0) if info is None else (info.last_number, info.checkpoint_count)
        known = self._known.get(session_id, known)  # somebody else may have written meanwhile
        if known is None:
            known = self._known[session_id] = _Known(counter, live, counter)
        known.counter, known.live, known.last = counter, live, max(counter, known.last)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        if live + count > full:
            raise SessionFullError(
                f"the session {session_id!r} holds {live} records, and {count} more would exceed {full}. Nothing was "
                f"added or removed. {advice}"
            )

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
