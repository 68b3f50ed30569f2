"""Reading sessions back from Postgres: the reads of the in-memory manager, async, with paging and filters.

Read-only: a role with select on the schema is enough. Needs the extra ``reader`` (asyncpg).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from waypost.arguments import require_text, require_timeout
from waypost.backoff import Backoff
from waypost.deprecation import deprecated
from waypost.discovery import find_deployment
from waypost.encryption import codec_of, require_codec
from waypost.errors import InvalidArgumentError, ReaderTimeoutError, quoted
from waypost.kafka.addresses import broker_addresses
from waypost.model.limits import MAX_SESSION_ID, require_sendable_options, text_problem
from waypost.model.tenants import TenantScope
from waypost.model.times import from_micros, to_micros
from waypost.reader.pages import SessionInfo, SessionPage
from waypost.reader.pool import DEFAULT_SCHEMA as DEFAULT_SCHEMA
from waypost.reader.pool import ReadPool
from waypost.reader.session import SessionReader, checked_limit, in_utc
from waypost.reader.sharding import SessionSource, ShardedPool
from waypost.reader.sharding import SnapshotSet as SnapshotSet
from waypost.shards import dsn_list
from waypost.wire.encode import check_session_id
from waypost.wire.topics import DEFAULT_PREFIX, Topics

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec
    from waypost.reader.barrier import Barrier

_SESSIONS: Final = 500
#: Between two looks at the position that :meth:`Reader.wait_for` waits for.
_FIRST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.1
#: Sorts after every session id: ids are compared by code point.
_AFTER_ALL: Final = chr(0x10FFFF) * (MAX_SESSION_ID + 1)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


class Reader:
    """Reader of sessions in Postgres: ``async with waypost.Reader(dsn) as reader: …``

    A role that may only read is enough. Connections are made when they are first needed.

    All reads raise DatabaseUnavailableError if Postgres can't be reached, AccessDeniedError if it refuses the login
    or the read, ReaderTimeoutError if one takes too long, ShardMapError if the databases do not belong together, and
    ReaderError for anything else that goes wrong in Postgres. With a codec, reads of data raise the errors of
    :meth:`waypost.Codec.decrypt` too, and return nothing that does not authenticate.

    Args:
        dsn: The address of the database. If it is sharded, all of them in the deployment's order: as a list, or as a
            text with white space between them. If None, the reader connects to what the command line finds:
            ``WAYPOST_`` variables, then waypost.toml, then a running ``waypost dev``, including brokers and names.
        schema: Name of the schema, if it is not ``waypost``.
        pool_size: The maximum number of connections to each database.
        timeout: Seconds that a read, a wait for a connection or a connect may take.
        reconnect: Seconds that reads wait for a Postgres that was reached before and is unavailable.
        statement_cache_size: 0 behind a pooler such as pgbouncer in transaction mode.
        bootstrap_servers: Addresses of brokers, which :meth:`barrier` needs.
        topic_prefix: Prefix of the two topics.
        kafka_options: Options of the Kafka client for TLS and SASL.
        tenant: Read only the sessions of this tenant, whose ids begin with it and ``/``. Reads of other
            sessions raise AccessDeniedError, listings leave them out, and each transaction names the tenant to
            Postgres, whose row-level security binds roles that were made for it.
        codec: A :class:`waypost.Codec` that decrypts data. Without one, encrypted data is returned as it is. If ``dsn``
            is None, the reader has that of the deployment.
    """

    def __init__(
        self,
        dsn: str | Sequence[str] | None = None,
        *,
        schema: str | None = None,
        pool_size: int = 4,
        timeout: float = 30,
        reconnect: float = 10,
        statement_cache_size: int = 100,
        bootstrap_servers: str | None = None,
        topic_prefix: str | None = None,
        kafka_options: Mapping[str, Any] | None = None,
        tenant: str | None = None,
        codec: "Codec | None" = None,
    ) -> None:
        self._scope = TenantScope(tenant)
        if dsn is None:
            found = find_deployment()
            codec = codec_of(found) if codec is None else codec
            dsn = found.postgres_dsn
            schema = found.postgres_schema if schema is None else schema
            if bootstrap_servers is None:
                bootstrap_servers = found.bootstrap_servers
                topic_prefix = found.topic_prefix if topic_prefix is None else topic_prefix
                kafka_options = found.kafka_options if kafka_options is None else kafka_options
        require_codec(codec)
        require_sendable_options({} if kafka_options is None else kafka_options)
        schema = DEFAULT_SCHEMA if schema is None else schema
        topic_prefix = DEFAULT_PREFIX if topic_prefix is None else topic_prefix
        self._shards = ShardedPool(
            [
                ReadPool(one, schema, pool_size, timeout, reconnect, statement_cache_size, tenant)
                for one in dsn_list(dsn)
            ],
            self._scope,
        )
        self._codec = codec
        self._barrier = self._make_barrier(bootstrap_servers, topic_prefix, kafka_options or {}, timeout)

    def _make_barrier(
        self, servers: str | None, topic_prefix: str, options: Mapping[str, Any], timeout: float
    ) -> "Barrier | None":
        if servers is None:
            return None
        from waypost.reader.barrier import Barrier  # brings the Kafka client

        broker_addresses(servers)  # rejects invalid ones
        topic = Topics(topic_prefix).commands
        return Barrier(self._shards, topic, {"bootstrap_servers": servers, **options}, timeout)

    def __repr__(self) -> str:
        tenant = self._scope.tenant
        return f"<Reader of {self._shards.described}{'' if tenant is None else f': tenant {quoted(tenant)}'}>"

    async def __aenter__(self) -> Self:
        for pool in self._shards.pools:
            await pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections permanently. Later reads raise ReaderClosedError."""
        if self._barrier is not None:
            await self._barrier.close()
        if self._codec is not None:
            await self._codec.close()
        await self._shards.close()

    @property
    def codec(self) -> "Codec | None":
        """Codec that decrypts data, or None."""
        return self._codec

    def session(self, session_id: str) -> SessionReader:
        """Return the reads of one session, which does not have to exist.

        Raises:
            AccessDeniedError: The reader has a tenant, and the session is another one's.
            InvalidCommandError: No session can have this id.
        """
        found = SessionReader(SessionSource(self._shards, session_id), session_id, self._codec)
        self._scope.require(session_id)
        return found

    async def sessions(
        self, *, prefix: str = "", limit: int = _SESSIONS, cursor: str | None = None
    ) -> SessionPage:
        """List sessions in the order of their ids.

        Args:
            prefix: Only sessions whose id starts with this. A prefix that no session id can have finds nothing.
            limit: The maximum number of sessions per page.
            cursor: The ``cursor`` of the previous page, which is the last session id in it. None starts the list.

        Raises:
            InvalidArgumentError: ``limit`` is below 1, or ``cursor`` does not belong to this listing.
        """
        if (arguments := _listing(self._scope, prefix, limit, cursor)) is None:
            return SessionPage([], None)
        return _by_id(await self._shards.fetch_all("sessions", *arguments), limit)

    async def recent_sessions(
        self,
        *,
        prefix: str = "",
        active_since: datetime | None = None,
        limit: int = _SESSIONS,
        cursor: str | None = None,
    ) -> SessionPage:
        """List sessions by the time of their last accepted command, the latest first.

        A session that becomes active between two pages moves ahead of the remaining pages.

        Args:
            prefix: Only sessions whose id starts with this.
            active_since: Only sessions with an accepted command at this time or later. It has a time zone.
            limit: The maximum number of sessions per page.
            cursor: The ``cursor`` of the previous page. None starts the list.

        Raises:
            NaiveDatetimeError: ``active_since`` has no time zone.
            InvalidArgumentError: ``limit`` is below 1, or ``cursor`` does not belong to this listing.
        """
        since = _EARLIEST if active_since is None else in_utc(active_since)
        at, session_id = (_LATEST, _AFTER_ALL) if cursor is None else _place(cursor)
        checked_limit(limit)
        if not _possible(prefix) or (narrowed := self._scope.narrowed(prefix)) is None:
            return SessionPage([], None)
        listed = await self._shards.fetch_all(
            "recent_sessions", at, session_id, narrowed, first_after(narrowed), since, limit
        )
        latest_first = merge(
            *listed, key=lambda row: (row["last_recorded_at"], row["session_id"]), reverse=True
        )
        found = [_session_info(row) for row in islice(latest_first, limit)]
        return SessionPage(found, _cursor(found[-1]) if len(found) == limit else None)

    async def _fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Any]:
        """Return the rows of one of the library's statements about one session."""
        pool = await self._shards.of_session(session_id)
        return await pool.fetch(statement, session_id, *arguments)

    async def _fetch_all(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of one of the library's statements about many sessions, database after database."""
        return [row for rows in await self._shards.fetch_all(statement, *arguments) for row in rows]

    @deprecated("the methods of session()")
    async def fetch(self, statement: str, session_id: str, *arguments: Any) -> list[Any]:
        """Return the rows of one of the library's statements, which are internal."""
        return await self._fetch(statement, session_id, *arguments)

    @deprecated("sessions()")
    async def fetch_all(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of one of the library's statements, which are internal."""
        return await self._fetch_all(statement, *arguments)

    def snapshot(self) -> AbstractAsyncContextManager[SnapshotSet]:
        """Open reads that all see the same moment, one of each database. They hold a connection to each."""
        return self._shards.snapshot()

    async def session_info(self, session_id: str) -> SessionInfo | None:
        """Return the summary of a session, or None if no command of it was ever accepted.

        Raises:
            AccessDeniedError: The reader has a tenant, and the session is another one's.
        """
        possible = _possible(session_id)
        self._scope.require(session_id)
        rows = await self._fetch("session", session_id) if possible else []
        return _session_info(rows[0]) if rows else None

    async def barrier(self, session_id: str, timeout: float = 10) -> None:
        """Wait until Postgres has everything that Kafka had acknowledged for a session when this call began.

        Reads that follow are linearizable: they see everything that Kafka had acknowledged to any process. This takes
        one request to Kafka, one indexed row of Postgres, and as long as workers are behind in that partition.

        Args:
            session_id: The session that will be read.
            timeout: Seconds to wait for workers.

        Raises:
            InvalidArgumentError: The reader was created without ``bootstrap_servers``.
            KafkaUnavailableError: Kafka did not say how far its log goes.
            ReaderTimeoutError: The commands were not applied in time.
        """
        check_session_id(session_id)
        self._scope.require(session_id)
        require_timeout(timeout)
        if self._barrier is None:
            raise InvalidArgumentError(
                "barrier() also asks Kafka: create the reader with bootstrap_servers=…"
            )
        partition = await self._barrier.partition_of(session_id)
        await self._barrier.applied(partition, await self._barrier.end_of(partition), timeout)

    async def wait_for(self, token: tuple[int, int], timeout: float = 10) -> None:
        """Wait until a command is applied, to read your own writes.

        Args:
            token: The ``token`` of a :class:`waypost.CommandResult` or a :class:`waypost.Event`.
            timeout: Seconds to wait.

        Raises:
            ReaderTimeoutError: The command was not applied in time. The message says how far its partition is.
        """
        partition, offset = _checked_token(token)
        require_timeout(timeout)
        position: int | None = None
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                while True:
                    pool = await self._shards.of_partition(partition)
                    rows = await pool.fetch("position", partition)
                    position = rows[0]["next_offset"] if rows else 0
                    if position > offset:
                        return
                    await asyncio.sleep(backoff.next_wait())
        except TimeoutError as error:
            if not limit.expired():
                raise
            if position is None:
                raise ReaderTimeoutError(
                    f"The position of partition {partition} could not be read within {timeout:g} s."
                ) from error
            raise ReaderTimeoutError(
                f"Partition {partition} is applied up to offset {position - 1}, but not to {offset}, after "
                f"{timeout:g} s. Is a worker running?"
            ) from None


async def sessions_of(
    snapshot: SnapshotSet, *, prefix: str = "", limit: int = _SESSIONS, cursor: str | None = None
) -> SessionPage:
    """List sessions like :meth:`Reader.sessions`, as they were at the moment of a snapshot."""
    if (arguments := _listing(snapshot.scope, prefix, limit, cursor)) is None:
        return SessionPage([], None)
    return _by_id([await part.fetch("sessions", *arguments) for part in snapshot.parts], limit)


def _listing(
    scope: TenantScope, prefix: str, limit: int, cursor: str | None
) -> tuple[str, str, str, int] | None:
    """Return the arguments of a listing by id; None if no session can be in it."""
    cursor = cursor or ""
    if not _possible(cursor):
        raise InvalidArgumentError(
            f"{quoted(cursor)} is not a cursor of this list. Pass the one that a page gave, or its last session id."
        )
    checked_limit(limit)
    if not _possible(prefix) or (narrowed := scope.narrowed(prefix)) is None:
        return None
    return cursor, narrowed, first_after(narrowed), checked_limit(limit)


def _possible(text: str) -> bool:
    """Return whether a session id may begin like this. Postgres accepts neither NUL nor half a character as text."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"session ids and cursors are strings, not {type(text).__name__}")
    return text == "" or text_problem(text, MAX_SESSION_ID) is None


def _checked_token(token: tuple[int, int]) -> tuple[int, int]:
    match token:
        case (int() as partition, int() as offset) if 0 <= partition < 2**31 and -(2**63) <= offset < 2**63:
            return partition, offset
    raise InvalidArgumentError(f"{quoted(token)} is not the token of a result: a partition and an offset")


def _by_id(listed: Sequence[Iterable[Any]], limit: int) -> SessionPage:
    # Each database gave its first ones, in the order of code points, which is that of Python's texts.
    rows = merge(*listed, key=lambda row: row["session_id"])
    found = [_session_info(row) for row in islice(rows, limit)]
    return SessionPage(found, found[-1].session_id if len(found) == limit else None)


def first_after(prefix: str) -> str:
    """Return the smallest text above all that begin with ``prefix``, because every index supports ranges."""
    while prefix:
        last = ord(prefix[-1]) + 1
        if last <= 0x10FFFF:
            # Surrogates are not characters.
            return prefix[:-1] + chr(0xE000 if last == 0xD800 else last)
        prefix = prefix[:-1]
    return _AFTER_ALL


def _cursor(info: SessionInfo) -> str:
    return f"{to_micros(info.last_recorded_at)} {info.session_id}"


def _place(cursor: str) -> tuple[datetime, str]:
    require_text("cursor", cursor)
    micros, _, session_id = cursor.partition(" ")
    try:
        if text_problem(session_id, MAX_SESSION_ID) is None:
            return from_micros(int(micros)), session_id
    except (ValueError, OverflowError):
        pass
    raise InvalidArgumentError(
        f"{quoted(cursor)} is not a cursor of this list: pass the one that a page gave"
    )


def _session_info(row: Any) -> SessionInfo:
    policy = row["policy"]
    return SessionInfo(
        session_id=row["session_id"],
        partition=row["partition"],
        last_number=row["counter"],
        checkpoint_count=row["checkpoints"],
        policy=None if policy is None else orjson.loads(policy),
        first_recorded_at=row["first_recorded_at"],
        last_recorded_at=row["last_recorded_at"],
        erased_at=row["erased_at"],
    )
