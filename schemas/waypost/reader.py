"""Reading sessions back from Postgres: the reads of the in-memory manager, async, with paging and filters.

Read-only: a role with select on the schema is enough. Needs the extra ``reader`` (asyncpg).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self

import orjson

from waypost.checkpoint import Checkpoint, Summary, checkpoint_id, export_json, own_number
from waypost.outgoing import metadata_json
from waypost.text import canonical_metadata
from waypost.times import to_micros

DEFAULT_SCHEMA: Final = "waypost"
_PAGE: Final = 500
_HIGHEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as the listing shows it. ``counter`` is the highest number ever given."""

    session_id: str
    partition: int
    counter: int
    checkpoints: int
    policy: dict[str, Any] | None
    first_recorded_at: datetime
    last_recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Some checkpoints, and the ``cursor`` to pass for the next ones, None at the end."""

    checkpoints: list[Checkpoint]
    cursor: str | None


class Reader:
    """A pool of read-only connections: ``async with waypost.Reader(dsn) as reader: …``

    ``schema`` is another one than ``waypost`` where a replay built a side schema. Statements take at most
    ``timeout`` seconds. Works behind pgbouncer in transaction mode with ``statement_cache_size=0``.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        pool_size: int = 4,
        timeout: float = 30,
        statement_cache_size: int = 100,
    ) -> None:
        if not (schema.isidentifier() and schema.islower() and schema.isascii()):
            raise ValueError(f"the schema name {schema!r} must be a plain lower-case identifier")
        self._dsn = dsn
        self._schema = schema
        self._pool: Any = None
        self._options: dict[str, Any] = {
            "min_size": 0,
            "max_size": pool_size,
            "command_timeout": timeout,
            "timeout": timeout,
            "statement_cache_size": statement_cache_size,
        }
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    def session(self, session_id: str) -> "SessionReader":
        """The reads of one session; it need not exist."""
        return SessionReader(self, session_id)

    async def sessions(self, *, prefix: str = "", limit: int = _PAGE, cursor: str = "") -> list[SessionInfo]:
        """Sessions by id, those that begin with ``prefix``; ``cursor`` is the last id of the page before."""
        rows = await self.fetch("sessions", cursor, prefix, limit)
        return [_session_info(row) for row in rows]

    async def session_info(self, session_id: str) -> SessionInfo | None:
        """What is known of a session, or None if no command of it was ever accepted."""
        rows = await self.fetch("session", session_id)
        return _session_info(rows[0]) if rows else None

    async def wait_for(self, token: tuple[int, int], timeout: float = 10) -> None:
        """Wait until the command with this (partition, offset) is applied: read your own writes.

        TimeoutError says how far the partition is.
        """
        partition, offset = token
        wait = 0.001
        position = 0
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            rows = await self.fetch("position", partition)
            position = rows[0]["next_offset"] if rows else 0
            if position > offset:
                return
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise TimeoutError(
                    f"partition {partition} is applied up to offset {position - 1}, not yet to {offset}, after "
                    f"{timeout} s: is a worker running?"
                )
            await asyncio.sleep(min(wait, left))
            wait = min(2 * wait, 0.1)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """Rows of a named statement of this library; a lost connection is tried once more."""
        import asyncpg

        pool = await self._opened()
        sql = _statement(statement, self._schema)
        try:
            rows: list[Any] = await pool.fetch(sql, *arguments)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError):
            rows = await pool.fetch(sql, *arguments)
        return rows

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                try:
                    import asyncpg
                except ImportError:
                    raise ImportError(
                        "waypost.Reader needs asyncpg: install it with pip install 'waypost[reader]'"
                    ) from None
                self._pool = await asyncpg.create_pool(self._dsn, **self._options)
            return self._pool


class SessionReader:
    """The reads of one session, with the names and results of :class:`waypost.CheckpointManager`.

    ``name``, ``metadata`` (containment) and the page arguments narrow a list. Lists come oldest first unless
    they say otherwise. Naive datetimes raise NaiveDatetimeError.
    """

    def __init__(self, reader: Reader, session_id: str) -> None:
        self.session_id = session_id
        self._reader = reader

    async def get(self, checkpoint_id: str) -> Checkpoint | None:
        """The checkpoint with this id, or the newest that was imported under it, or None."""
        number = own_number(self.session_id, checkpoint_id)
        rows = [] if number is None else await self._reader.fetch("get", self.session_id, number)
        rows = rows or await self._reader.fetch("get_imported", self.session_id, checkpoint_id)
        return _checkpoint(rows[0]) if rows else None

    async def get_by_name(self, name: str) -> list[Checkpoint]:
        """All of that name, newest first."""
        return await self._all("newest_first", name=name)

    async def get_latest(self, name: str | None = None) -> Checkpoint | None:
        """The highest number, optionally of that name, or None."""
        rows = await self._reader.fetch("latest", self.session_id, name)
        return _checkpoint(rows[0]) if rows else None

    async def get_all(
        self, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> list[Checkpoint]:
        """All live checkpoints, oldest first."""
        return await self._all("oldest_first", name=name, metadata=metadata)

    async def get_since(self, t: datetime) -> list[Checkpoint]:
        """Those with a timestamp strictly after ``t`` (aware), in order of number."""
        return await self._all("oldest_first", after=t)

    async def get_between(self, a: datetime, b: datetime) -> list[Checkpoint]:
        """Those with a timestamp from ``a`` to ``b``, both included, in order of number."""
        return await self._all("oldest_first", first=a, last=b)

    async def page(
        self,
        *,
        cursor: str | None = None,
        limit: int = _PAGE,
        newest_first: bool = False,
        name: str | None = None,
        since: datetime | None = None,
        between: tuple[datetime, datetime] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Page:
        """At most ``limit`` checkpoints after ``cursor``, filtered."""
        first, last = between or (None, None)
        statement = "newest_first" if newest_first else "oldest_first"
        found = await self._some(statement, _number(cursor), limit, name, since, first, last, metadata)
        full = len(found) == limit
        return Page(found, str(found[-1].number) if full else None)

    async def rollback_to(self, checkpoint_id: str) -> dict[str, Any] | None:
        """That checkpoint's data, or None. Changes nothing."""
        found = await self.get(checkpoint_id)
        return None if found is None else found.data

    async def get_summary(self) -> Summary:
        """Counts, names, first and last checkpoint, and the span in seconds."""
        rows = await self._reader.fetch("summary", self.session_id)
        if not rows:
            return {
                "total_count": 0,
                "unique_names": 0,
                "names": {},
                "first_checkpoint": None,
                "last_checkpoint": None,
                "duration_seconds": 0.0,
            }
        first = await self.get(checkpoint_id(self.session_id, min(row["first"] for row in rows)))
        last = await self.get_latest()
        span = max(row["latest"] for row in rows) - min(row["earliest"] for row in rows)
        return {
            "total_count": sum(row["count"] for row in rows),
            "unique_names": len(rows),
            "names": {row["name"]: row["count"] for row in rows},
            "first_checkpoint": None if first is None else first.to_dict(),
            "last_checkpoint": None if last is None else last.to_dict(),
            "duration_seconds": span.total_seconds(),
        }

    async def export(self) -> str:
        """The interchange list as JSON text, indented by 2."""
        return export_json(await self.get_all())

    async def export_stream(self) -> AsyncIterator[bytes]:
        """The same text as :meth:`export`, in pieces, without holding all of it."""
        opened = False
        async for checkpoint in self:
            raw = orjson.dumps(checkpoint.to_dict(), option=orjson.OPT_INDENT_2).replace(b"\n", b"\n  ")
            yield (b",\n  " if opened else b"[\n  ") + raw
            opened = True
        yield b"\n]" if opened else b"[]"

    async def count(self) -> int:
        """How many live checkpoints there are."""
        rows = await self._reader.fetch("count", self.session_id)
        return int(rows[0]["count"])

    async def __aiter__(self) -> AsyncIterator[Checkpoint]:
        cursor: str | None = None
        while True:
            page = await self.page(cursor=cursor)
            for checkpoint in page.checkpoints:
                yield checkpoint
            cursor = page.cursor
            if cursor is None:
                return

    async def _all(
        self,
        statement: str,
        *,
        name: str | None = None,
        after: datetime | None = None,
        first: datetime | None = None,
        last: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Checkpoint]:
        return await self._some(statement, None, _HIGHEST, name, after, first, last, metadata)

    async def _some(
        self,
        statement: str,
        at: int | None,
        limit: int,
        name: str | None,
        after: datetime | None,
        first: datetime | None,
        last: datetime | None,
        metadata: Mapping[str, Any] | None,
    ) -> list[Checkpoint]:
        for moment in (after, first, last):
            if moment is not None:
                to_micros(moment)  # refuses naive ones
        if at is None:
            at = _HIGHEST if statement == "newest_first" else 0
        wanted = None if metadata is None else metadata_json(dict(metadata)).decode()
        rows = await self._reader.fetch(
            statement, self.session_id, at, name, after, first, last, wanted, limit
        )
        return [_checkpoint(row) for row in rows]


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdigit():
        raise ValueError(f"{cursor!r} is not a cursor of this list: pass the one that a page gave")
    return int(cursor)


def _checkpoint(row: Any) -> Checkpoint:
    return Checkpoint(
        id=checkpoint_id(row["session_id"], row["number"]),
        name=row["name"],
        timestamp=row["taken_at"],
        recorded_at=row["recorded_at"],
        raw_data=row["data"],
        raw_metadata=canonical_metadata(orjson.loads(row["metadata"])),
        pinned=row["pinned"],
        imported_id=row["imported_id"],
    )


def _session_info(row: Any) -> SessionInfo:
    policy = row["policy"]
    fields: dict[str, Any] = {**row, "policy": None if policy is None else orjson.loads(policy)}
    return SessionInfo(**fields)


@cache
def _statement(name: str, schema: str) -> str:
    text = files("waypost").joinpath("sql", f"{name}.sql").read_text()
    return text if schema == DEFAULT_SCHEMA else text.replace("waypost.", f"{schema}.")
