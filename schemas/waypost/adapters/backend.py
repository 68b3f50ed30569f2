"""Shared parts of the adapters: one publisher and one reader, writes that are visible once they return, bounds.

A write returns once the publisher has it, Kafka has it, or a worker applied it. A read asks Kafka how far the log goes
and waits until Postgres has that much, or lacks no more than what this process wrote itself, which is then shown from
memory. So a read sees whatever was acknowledged before it, also on a replica. Knows no framework.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

import orjson
from typing_extensions import override

from waypost.adapters.clean_ups import CleanUps
from waypost.adapters.commands import commands_of, create_command
from waypost.adapters.connection import Connection
from waypost.adapters.freshness import Freshness
from waypost.adapters.home_loop import HomeLoop
from waypost.adapters.known_sessions import KnownSessions
from waypost.adapters.known_sessions import SessionFullError as SessionFullError
from waypost.adapters.records import (
    FULL,
    SPARE,
    EncodedRecord,
    Grouping,
    Record,
    Row,
    divided,
    import_item,
    whole,
)
from waypost.adapters.room import Room
from waypost.adapters.unconfirmed import PARTS_AT_ONCE, UnconfirmedWrites
from waypost.adapters.unconfirmed import RejectedWriteError as RejectedWriteError
from waypost.arguments import require_above_zero
from waypost.deprecation import rename_keys, renamed_keywords
from waypost.discovery import find_deployment
from waypost.encryption import codec_of
from waypost.errors import InvalidArgumentError, quoted
from waypost.model.times import format_micros, to_micros
from waypost.publisher.options import RENAMED_OPTIONS
from waypost.publisher.waiter import CommandResult
from waypost.reader.client import DEFAULT_SCHEMA
from waypost.reader.decoding import decrypted_data
from waypost.wire.encode import checkpoint_body, encoded_create, import_body
from waypost.wire.event_types import EventType
from waypost.wire.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec

_DUE_EVERY: Final = 64  # records
#: When a write returns: once the publisher has it, once Kafka has it, or once a worker applied it.
Durability = Literal["accepted", "logged", "applied"]
_T = TypeVar("_T")


def checked_durability(durability: Durability) -> Durability:
    """Return ``durability``, or raise InvalidArgumentError."""
    if durability not in ("accepted", "logged", "applied"):
        raise InvalidArgumentError(f"durability is 'accepted', 'logged' or 'applied', not {durability!r}")
    return durability


@dataclass(frozen=True, slots=True)
class Appended:
    """Numbers of the added records. ``due``: it is this call's turn to remove old ones."""

    numbers: list[int]
    due: bool


class Backend:
    """Connection of the adapters to Kafka and Postgres: ``async with Backend("localhost:9092", dsn) as backend: …``

    In code without an event loop, ``with Backend(…) as backend`` runs one in a separate thread. The synchronous methods
    of the adapters then work from any thread.

    Args:
        bootstrap_servers: Addresses of brokers, as ``host:port``, separated by commas. If neither brokers nor a
            database are given, the backend connects to what the command line finds: ``WAYPOST_`` variables, then
            waypost.toml, then a running ``waypost dev``.
        dsn: The address of the database, or of all its shards.
        topic_prefix: Prefix of the two topics (default: ``waypost``, or what was found with the brokers).
        schema: Name of the schema in Postgres (default: ``waypost``, or what was found with the brokers).
        timeout: Seconds that a write waits for its result, and a read for this process's own writes. After that, a
            write raises ResultTimeoutError: it was accepted and may still be applied.
        publisher_options: Options of :class:`waypost.Publisher`, such as ``kafka_options`` for TLS and SASL.
        reader_options: Options of :class:`waypost.Reader`.
        codec: A :class:`waypost.Codec` that encrypts what the adapters store, including serialized values. Names and
            metadata, by which records are found, stay readable. If neither brokers nor a database are given, the
            backend uses the deployment's codec.
    """

    @renamed_keywords(prefix="topic_prefix")
    def __init__(
        self,
        bootstrap_servers: str | None = None,
        dsn: str | Sequence[str] | None = None,
        *,
        topic_prefix: str | None = None,
        schema: str | None = None,
        timeout: float = 30,
        publisher_options: Mapping[str, Any] | None = None,
        reader_options: Mapping[str, Any] | None = None,
        codec: "Codec | None" = None,
    ) -> None:
        for what, given in (("publisher_options", publisher_options), ("reader_options", reader_options)):
            if not isinstance(given, Mapping | None) or not all(
                isinstance(name, str) for name in given or ()
            ):
                raise InvalidArgumentError(f"{what} must be a dict of options by name, not {quoted(given)}")
        require_above_zero("timeout", timeout)
        options = dict(publisher_options or {})
        rename_keys("publisher_options", options, RENAMED_OPTIONS, 2)
        if bootstrap_servers is None and dsn is None:
            found = find_deployment()
            bootstrap_servers, dsn = found.bootstrap_servers, found.postgres_dsn
            topic_prefix = found.topic_prefix if topic_prefix is None else topic_prefix
            schema = found.postgres_schema if schema is None else schema
            options.setdefault("kafka_options", found.kafka_options)
            codec = codec_of(found) if codec is None else codec
        codec = options.pop("codec", None) if codec is None else codec
        if bootstrap_servers is None or dsn is None:
            raise InvalidArgumentError(
                "Backend needs both bootstrap_servers and dsn, or neither to look for them"
            )
        topic_prefix = DEFAULT_PREFIX if topic_prefix is None else topic_prefix
        schema = DEFAULT_SCHEMA if schema is None else schema
        self._connection = Connection(
            bootstrap_servers,
            dsn,
            topic_prefix=topic_prefix,
            schema=schema,
            timeout=timeout,
            publisher_options={**options, "codec": codec},
            reader_options={"codec": codec, **(reader_options or {})},
        )
        self._encrypts = codec is not None
        self._place = f"{Topics(topic_prefix).commands!r} at {bootstrap_servers}"
        self._home = HomeLoop()
        self._clean_ups = CleanUps()
        self._known = KnownSessions()
        self._unconfirmed = UnconfirmedWrites(self._connection)
        self._freshness = Freshness(self._connection, self._unconfirmed, self._known)
        self._room = Room(self._connection, self._unconfirmed, self._known, self._freshness)

    @override
    def __repr__(self) -> str:
        return f"<Backend of {self._place}: {'open' if self._home.is_set else 'new or closed'}>"

    async def __aenter__(self) -> Self:
        self._home.adopt()
        try:
            await self._connection.open()
        except BaseException:
            self._home.leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._home.leave()
        background = {*self._clean_ups.tasks(), *self._unconfirmed.tasks()}
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        await self._connection.close()

    def __enter__(self) -> Self:
        return self._home.start_thread(self.__aenter__)

    def __exit__(self, *_: object) -> None:
        self._home.stop_thread(self.__aexit__)

    @property
    def timeout(self) -> float:
        """Seconds that a write waits for its result, and a read for this process's own writes."""
        return self._connection.timeout

    # From any thread, from any loop.

    def run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on this backend's event loop, and wait for it.

        Raises:
            RuntimeError: This is the thread of that event loop.
            PublisherClosedError: That event loop does not run, or belongs to the parent process.
        """
        return self._home.run(call)

    async def join(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Await a coroutine on this backend's event loop, from any event loop."""
        return await self._home.join(call)

    # Writes.

    def tidy(self, session_id: str, clean_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a clean-up of a session in the background, unless one is under way. Its failure is logged."""
        self._clean_ups.begin(session_id, clean_up)

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
            SessionFullError: The records may not fit, also not once a clean-up under way has ended.
            RejectedWriteError: The worker rejected an earlier write to the session. Nothing was added now.
            ResultTimeoutError: Kafka or the worker did not answer in time. The records may still be added.
        """
        self._unconfirmed.raise_rejected(session_id)
        await self._connection.publisher.prepare(session_id)
        sent = [divided(record, encrypts=self._encrypts) for record in records]
        parts = [part for each in sent for part in each.parts]
        mains = [each.main for each in sent]
        await self._make_room(session_id, len(sent) + len(parts), spare, advice)
        known = self._known[session_id]
        before = known.last
        if durability != "applied":
            known.last += len(sent) + len(parts)  # immediately, so that concurrent calls count them
            known.blind = True
            due = before // _DUE_EVERY != known.last // _DUE_EVERY
            commands = [create_command(part, None) for part in parts] + commands_of(
                mains, timestamp, encrypts=self._encrypts
            )
            added = [each.whole for each in sent]
            await self._unconfirmed.publish(session_id, commands, added, until_logged=durability == "logged")
            return Appended([], due)
        numbers: list[int] = []
        for start in range(0, len(parts), PARTS_AT_ONCE):
            creating = [self._create(session_id, part, None) for part in parts[start : start + PARTS_AT_ONCE]]
            numbers += await asyncio.gather(*creating)
        if len(mains) == 1:
            numbers.append(await self._create(session_id, mains[0], timestamp))
        else:
            for command in commands_of(mains, timestamp, encrypts=self._encrypts):
                result = (await self._wait(session_id, command.kind, command.body)).raise_if_rejected()
                numbers += self._known.numbered(session_id, result.body["ids"])
        return Appended(numbers, before // _DUE_EVERY != max(before, *numbers) // _DUE_EVERY)

    async def _make_room(self, session_id: str, count: int, spare: bool, advice: str) -> None:
        full = FULL + SPARE if spare else FULL
        try:
            await self._room.make(session_id, count, full, advice)
        except SessionFullError:
            # A clean-up takes spare room, and must not wait for itself.
            if spare or not await self._clean_ups.ended(session_id):
                raise
            await self._room.make(session_id, count, full, advice)

    def is_sending(self) -> bool:
        """Tell whether Kafka takes what this process writes, as far as it knows."""
        return self._connection.publisher._sending()

    async def delete(self, session_id: str, numbers: Sequence[int]) -> bool:
        """Delete records in this order, and tell whether the last one was still there."""
        for number in numbers[:-1]:
            await self._connection.publisher.drain()
            self._connection.publisher.delete(session_id, f"{session_id}:{number}")
        body = checkpoint_body(f"{session_id}:{numbers[-1]}")
        return (await self._wait(session_id, EventType.DELETE, body)).type == EventType.DELETED

    async def clear(self, session_id: str) -> None:
        """Delete all records of a session. One that does not exist is not created."""
        await self._freshness.settled(session_id)
        if await self._connection.reader.session_info(session_id) is not None:
            await self._wait(session_id, EventType.CLEAR, b"{}")

    async def copy(
        self, source: str, target: str, remade: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """Copy all records of a session, as of one moment, to another one. ``remade`` changes their metadata."""
        await self._freshness.settled(source)
        info = await self._connection.reader.session_info(source)
        if info is None or info.checkpoint_count == 0:
            return
        await self._room.make(target, info.checkpoint_count, FULL, "Copy to another one, or clear it")
        async with self._connection.reader.snapshot() as snapshot:
            groups = Grouping(encrypts=self._encrypts)
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
        return await self._freshness.own_rows(session_id, stale_ok=stale_ok)

    async def settled(self, session_id: str, *, stale_ok: bool = False) -> None:
        """Wait until a read of Postgres alone sees all that was acknowledged before this call."""
        await self._freshness.settled(session_id, stale_ok=stale_ok)

    async def rows(
        self, session_id: str, statement: str, *arguments: Any, stale_ok: bool = False
    ) -> list[Row]:
        """Return the rows of one of the adapters' statements, with the parts of large ones joined."""
        await self._freshness.settled(session_id, stale_ok=stale_ok)
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
        await self._freshness.settled(session_id)
        return [
            row[0]
            for row in await self._connection.reader._fetch(f"adapters/{statement}", session_id, *arguments)
        ]

    async def among(self, statement: str, *arguments: Any) -> list[Any]:
        """Return what one of the adapters' statements finds in many sessions, as the database's own rows."""
        await self._freshness.all_settled()
        return await self._connection.reader._fetch_all(f"adapters/{statement}", *arguments)

    async def rows_among(self, statement: str, *arguments: Any) -> dict[str, list[Row]]:
        """Return the rows of such a statement by session, with the parts of large ones joined."""
        found: dict[str, list[Row]] = {}
        rows = await self.among(statement, *arguments)
        for each, data in zip(rows, await decrypted_data(rows, self._connection.codec), strict=True):
            found.setdefault(each["session_id"], []).append(_row(each, data))
        for session_id, rows in found.items():
            if large := [row.number for row in rows if row.batch is not None and row.raw]:
                joined = {row.number: row for row in await self.stored(session_id, "numbers", large)}
                found[session_id] = [joined.get(row.number, row) for row in rows]
        return found

    async def sessions(self, prefix: str) -> AsyncIterator[str]:
        """Yield the ids of sessions that have records and start with ``prefix``."""
        await self._freshness.all_settled()
        cursor = None
        while True:
            page = await self._connection.reader.sessions(prefix=prefix, cursor=cursor)
            for info in page:
                if info.checkpoint_count:
                    yield info.session_id
            if (cursor := page.cursor) is None:
                return

    async def _fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Row]:
        found = await self._connection.reader._fetch(f"adapters/{statement}", session_id, *arguments)
        data = await decrypted_data(found, self._connection.codec, session_id)
        return [_row(each, raw) for each, raw in zip(found, data, strict=True)]

    async def _create(self, session_id: str, record: EncodedRecord, timestamp: datetime | None) -> int:
        publisher = self._connection.publisher
        pending = publisher._pending_create(session_id, encoded_create(*record), timestamp)
        result = await publisher._publish_and_wait(pending, session_id, self.timeout)
        result.raise_if_rejected()
        self._known.note(session_id, result)
        return self._known.numbered(session_id, [result.body["checkpoint"]["id"]])[0]

    async def _import(self, session_id: str, group: list[bytes]) -> list[int]:
        result = await self._wait(session_id, EventType.IMPORT, import_body(group))
        return self._known.numbered(session_id, result.raise_if_rejected().body["ids"])

    async def _wait(self, session_id: str, kind: str, body: bytes) -> CommandResult:
        result = await self._connection.publisher.publish_and_wait(
            session_id, kind, body, timeout=self.timeout
        )
        self._known.note(session_id, result)
        return result


def _row(found: Any, data: bytes) -> Row:
    return Row(
        found["number"],
        found["name"],
        data,
        orjson.loads(found["metadata"]),
        found["recorded_at"],
        found["chosen"],
    )
