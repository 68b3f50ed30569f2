"""Reads threads out of the databases of LangGraph's own savers, without those savers and without building objects.

``PostgresSaver`` and ``AsyncPostgresSaver`` have a blob for each version of a channel, and small values in the
checkpoint; ``SqliteSaver`` and ``AsyncSqliteSaver`` have all values of a checkpoint in one blob. A thread is read as of
one moment, and nothing is written.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from waypost.adapters._langgraph_encoded import MSGPACK, Encoded, EncodedCheckpoint, Write, encoded, unpacked
from waypost.adapters.allowed_types import DecodeError, shown
from waypost.errors import WaypostError, quoted

_POSTGRES: Final = ("postgres://", "postgresql://")
_TASKS: Final = "__pregel_tasks"
_EMPTY: Final = "empty"  # the Postgres saver's entry for a channel without a value
# Before this version of checkpoints, what a parent's tasks sent was stored with the parent alone.
_OWN_SENDS: Final = 4
_T = TypeVar("_T")


class SourceError(WaypostError):
    """The source can't be read, or has none of LangGraph's tables."""


@dataclass(slots=True)
class SourceThread:
    """A thread as it is in the source, oldest checkpoint first. ``problems`` name what can't be read."""

    checkpoints: list[EncodedCheckpoint] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Source(Protocol):
    """A database of a saver."""

    async def threads(self) -> list[tuple[str, int]]:
        """Return the ids of all threads, and how many checkpoints each has."""
        ...

    async def thread(self, thread_id: str) -> SourceThread:
        """Return a thread with everything in it, as of one moment."""
        ...


@asynccontextmanager
async def opened(place: str) -> AsyncIterator[Source]:
    """Open a source: the DSN of a Postgres, or else an SQLite file.

    Raises:
        SourceError: It can't be opened. So does each call if it can't be read, or has no tables of LangGraph's.
    """
    if place.startswith(_POSTGRES):
        with _said_of_the_source():
            # Without prepared statements, since there may be a pooler in front of the source.
            pool = await asyncpg.create_pool(place, min_size=1, max_size=4, statement_cache_size=0)
        try:
            yield PostgresSource(pool)
        finally:
            await pool.close()
        return
    connection = _opened_file(Path(place))
    try:
        yield SqliteSource(connection)
    finally:
        connection.close()


def _opened_file(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise SourceError(f"The source {quoted(str(path))} is neither a DSN (postgresql://…) nor a file")
    with _said_of_the_source():
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


@contextmanager
def _said_of_the_source() -> Iterator[None]:
    """Say of an error that it is the source's: two databases are in use."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise SourceError(
            f"The source has no threads of LangGraph: {error}. It needs the tables of langgraph-checkpoint-postgres, "
            "as its setup() creates them"
        ) from error
    except sqlite3.Error as error:
        raise SourceError(
            f"The source is not a database of LangGraph's SqliteSaver, or is damaged: {error}"
        ) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise SourceError(f"The source can't be read: {error or type(error).__name__}") from error


class PostgresSource:
    """The tables of ``PostgresSaver`` and ``AsyncPostgresSaver``."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def threads(self) -> list[tuple[str, int]]:
        with _said_of_the_source():
            found = await self._pool.fetch(
                "select thread_id, count(*) as count from checkpoints group by thread_id order by thread_id"
            )
        return [(row["thread_id"], row["count"]) for row in found]

    async def thread(self, thread_id: str) -> SourceThread:
        checkpoints, blobs, writes = await self._rows(thread_id)
        held = {
            (row["checkpoint_ns"], row["channel"], row["version"]): Encoded(row["type"], row["blob"] or b"")
            for row in blobs
            if row["type"] != _EMPTY
        }

        def parsed(row: Any) -> tuple[dict[str, Any], dict[str, Encoded], dict[str, Any]]:
            bare = _checkpoint_of(json.loads(row["checkpoint"]))
            values = {channel: encoded(value) for channel, value in bare.pop("channel_values").items()}
            for channel, version in bare["channel_versions"].items():
                blob = held.get((row["checkpoint_ns"], channel, str(version)))
                if blob is not None:
                    values[channel] = blob
            return bare, values, json.loads(row["metadata"])

        found = _thread(checkpoints, writes, parsed)
        _add_sends(found.checkpoints, writes)
        return found

    async def _rows(self, thread_id: str) -> tuple[list[Any], list[Any], list[Any]]:
        with _said_of_the_source():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                checkpoints = await connection.fetch(
                    "select checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint::text, metadata::text "
                    "from checkpoints where thread_id = $1 order by checkpoint_id, checkpoint_ns",
                    thread_id,
                )
                blobs = await connection.fetch(
                    "select checkpoint_ns, channel, version, type, blob from checkpoint_blobs where thread_id = $1",
                    thread_id,
                )
                writes = await connection.fetch(
                    "select checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob "
                    "from checkpoint_writes where thread_id = $1",
                    thread_id,
                )
        return checkpoints, blobs, writes


def _add_sends(checkpoints: Iterable[EncodedCheckpoint], rows: Iterable[Any]) -> None:
    """Add what a parent's tasks sent to old checkpoints, as the saver does when it reads them."""
    sends: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: (row["task_path"], row["task_id"], row["idx"])):
        if row["channel"] == _TASKS:
            sends.setdefault(row["checkpoint_id"], []).append(row)
    for each in checkpoints:
        sent = sends.get(each.parent or "")
        if not sent or each.bare.get("v", 0) >= _OWN_SENDS:
            continue
        each.values[_TASKS] = encoded([unpacked(row["blob"]) for row in sent])
        versions = each.bare["channel_versions"]
        if versions:
            versions[_TASKS] = max(versions.values())


class SqliteSource:
    """The tables of ``SqliteSaver`` and ``AsyncSqliteSaver``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._connection.row_factory = sqlite3.Row
        self._turn = asyncio.Lock()

    async def threads(self) -> list[tuple[str, int]]:
        found = await self._call(
            lambda: self._connection.execute(
                "select thread_id, count(*) from checkpoints group by thread_id order by thread_id"
            ).fetchall()
        )
        return [(row[0], row[1]) for row in found]

    async def thread(self, thread_id: str) -> SourceThread:
        checkpoints, writes = await self._call(lambda: self._rows(thread_id))

        def parsed(row: Any) -> tuple[dict[str, Any], dict[str, Encoded], dict[str, Any]]:
            if row["type"] != MSGPACK:
                raise DecodeError(
                    f"it is stored as {shown(repr(row['type']))}, from which values can't be taken without "
                    "reading all of it"
                )
            bare = _checkpoint_of(unpacked(row["checkpoint"]))
            values = {channel: encoded(value) for channel, value in bare.pop("channel_values").items()}
            return bare, values, {} if row["metadata"] is None else json.loads(row["metadata"])

        return await asyncio.to_thread(_thread, checkpoints, writes, parsed)

    def _rows(self, thread_id: str) -> tuple[list[Any], list[Any]]:
        run = self._connection.execute
        columns = {row["name"] for row in run("pragma table_info(writes)")}
        task_path = "task_path" if "task_path" in columns else "'' as task_path"  # old files lack it
        run("begin")
        try:
            checkpoints = run(
                "select checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata "
                "from checkpoints where thread_id = ? order by checkpoint_id, checkpoint_ns",
                (thread_id,),
            ).fetchall()
            writes = run(
                f"select checkpoint_ns, checkpoint_id, task_id, {task_path}, idx, channel, type, "  # noqa: S608
                "value as blob from writes where thread_id = ?",
                (thread_id,),
            ).fetchall()
        finally:
            run("rollback")
        return checkpoints, writes

    async def _call(self, work: Callable[[], _T]) -> _T:
        async with self._turn:
            with _said_of_the_source():
                return await asyncio.to_thread(work)


def _checkpoint_of(found: Any) -> dict[str, Any]:
    """Return a checkpoint with its values. Raise DecodeError if it is not valid."""
    if not isinstance(found, dict) or not isinstance(found.get("channel_versions"), dict):
        raise DecodeError("it is not a checkpoint of LangGraph")
    values = found.get("channel_values") or {}
    if not isinstance(values, dict):
        raise DecodeError("its values are not a mapping")
    return {**found, "channel_values": values}


def _thread(
    checkpoints: Iterable[Any],
    writes: Iterable[Any],
    parsed: Callable[[Any], tuple[dict[str, Any], dict[str, Encoded], dict[str, Any]]],
) -> SourceThread:
    written: dict[tuple[str, str], list[Write]] = {}
    for row in writes:
        value = Encoded(row["type"] or "", row["blob"] or b"")
        write = Write(row["task_id"], row["task_path"], row["idx"], row["channel"], value)
        written.setdefault((row["checkpoint_ns"], row["checkpoint_id"]), []).append(write)
    thread = SourceThread()
    for row in checkpoints:
        ns, checkpoint_id = row["checkpoint_ns"], row["checkpoint_id"]
        try:
            bare, values, metadata = parsed(row)
            if not isinstance(metadata, dict):
                raise DecodeError("its metadata are not a mapping")
            found = EncodedCheckpoint(
                ns,
                checkpoint_id,
                row["parent_checkpoint_id"] or None,
                bare,
                metadata,
                values,
                written.get((ns, checkpoint_id), []),
            )
            thread.checkpoints.append(found)
        except (DecodeError, ValueError, RecursionError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            thread.problems.append(f"checkpoint {checkpoint_id!r} of namespace {ns!r}: {shown(reason)}")
    thread.checkpoints.sort(key=lambda each: each.id)
    return thread
