"""The reads of one session from Postgres: names and results of the in-memory manager, with filters and pages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from waypost.arguments import require_text
from waypost.errors import InvalidArgumentError, quoted
from waypost.model.checkpoint import Checkpoint, Summary, export_json, own_number
from waypost.model.limits import MAX_CHECKPOINT_ID, text_problem
from waypost.model.times import clamp_micros, from_micros, to_micros
from waypost.reader.decoding import decoded_rows, decoded_stream
from waypost.reader.pages import CheckpointPage
from waypost.reader.pool import ReadTransaction
from waypost.reader.sharding import SessionSource, SnapshotSet
from waypost.wire.encode import check_session_id, metadata_json

if TYPE_CHECKING:
    from waypost.encryption.codec import Codec

_PAGE: Final = 100  # checkpoints may have 900 KB each
_HIGHEST: Final = 2**63 - 1
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class _Filter(NamedTuple):
    """The filter for checkpoints. A timestamp is after ``after``, and from ``first`` to ``last``."""

    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    after: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None


class SessionReader:
    """Reads of one session, with the names and results of :class:`waypost.CheckpointManager`.

    Iterating over it yields all checkpoints, oldest first.
    ``name`` narrows a list to the checkpoints with this name, ``metadata`` to those whose metadata contains these
    members. Times must have a time zone. The errors are those of :class:`waypost.Reader`.
    """

    def __init__(self, source: SessionSource, session_id: str, codec: "Codec | None" = None) -> None:
        if session_id != "":  # the session of an id without a colon, which holds nothing
            check_session_id(session_id)
        self.session_id = session_id
        self._source = source
        self._codec = codec

    def __repr__(self) -> str:
        return f"<SessionReader of {self.session_id!r}>"

    async def get(self, checkpoint_id: str) -> Checkpoint | None:
        """Return the checkpoint with this id, or the newest that was imported under it, or None."""
        require_text("a checkpoint id", checkpoint_id)
        if not _possible(checkpoint_id):
            return None
        number = own_number(self.session_id, checkpoint_id)
        rows = [] if number is None else await self._source.fetch("get", self.session_id, number)
        rows = rows or await self._source.fetch("get_imported", self.session_id, checkpoint_id)
        return await self._first(rows)

    async def get_by_name(self, name: str, *, metadata: Mapping[str, Any] | None = None) -> list[Checkpoint]:
        """Return the checkpoints with this name, newest first."""
        return await self._all("newest_first", _Filter(name, metadata))

    async def get_latest(self, name: str | None = None) -> Checkpoint | None:
        """Return the checkpoint with the highest number, optionally of those with a name, or None."""
        if not _possible(name):
            return None
        return await self._first(await self._source.fetch("latest", self.session_id, name))

    async def get_all(
        self, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> list[Checkpoint]:
        """Return all checkpoints, oldest first."""
        return await self._all("oldest_first", _Filter(name, metadata))

    async def get_since(
        self, t: datetime, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> list[Checkpoint]:
        """Return the checkpoints with a timestamp after ``t``, in the order of their numbers.

        Raises:
            NaiveDatetimeError: ``t`` has no time zone.
        """
        return await self._all("oldest_first", _Filter(name, metadata, after=t))

    async def get_between(
        self,
        a: datetime,
        b: datetime,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Checkpoint]:
        """Return the checkpoints with a timestamp from ``a`` to ``b``, inclusive, in the order of their numbers.

        Raises:
            NaiveDatetimeError: ``a`` or ``b`` has no time zone.
        """
        return await self._all("oldest_first", _Filter(name, metadata, first=a, last=b))

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
    ) -> CheckpointPage:
        """Return a page of checkpoints.

        Args:
            cursor: The ``cursor`` of the previous page. None starts the list.
            limit: The maximum number of checkpoints per page.
            newest_first: Whether the newest come first.
            name: Only checkpoints with this name.
            since: Only checkpoints with a timestamp after this time.
            between: Only checkpoints with a timestamp from the first to the second time, inclusive.
            metadata: Only checkpoints whose metadata contains these members.

        Raises:
            InvalidArgumentError: ``limit`` is below 1, or ``cursor`` does not belong to this list.
            NaiveDatetimeError: A time has no time zone.
        """
        checked_limit(limit)
        first, last = (None, None) if between is None else _moments(between)
        statement = "newest_first" if newest_first else "oldest_first"
        wanted = _Filter(name, metadata, since, first, last)
        found = await self._some(statement, _number(cursor), limit, wanted)
        full = len(found) == limit
        return CheckpointPage(found, str(found[-1].number) if full else None)

    async def rollback_to(self, checkpoint_id: str) -> dict[str, Any] | None:
        """Change nothing, and return the data of this checkpoint, or None if there is none."""
        found = await self.get(checkpoint_id)
        return None if found is None else found.data

    async def get_summary(self) -> Summary:
        """Return counts, names, the first and the last checkpoint, and the time between them in seconds."""
        async with self._source.snapshot() as snapshot:
            rows = await snapshot.fetch("summary", self.session_id)
            rows_of_ends = await snapshot.fetch("ends", self.session_id)
        ends = [each.to_dict() for each in await decoded_rows(rows_of_ends, self._codec)]
        span = max(row["latest"] for row in rows) - min(row["earliest"] for row in rows) if rows else None
        return {
            "total_count": sum(row["count"] for row in rows),
            "unique_names": len(rows),
            "names": {row["name"]: row["count"] for row in rows},
            "first_checkpoint": ends[0] if ends else None,
            "last_checkpoint": ends[-1] if ends else None,
            "duration_seconds": span.total_seconds() if span is not None else 0.0,
        }

    async def export(self) -> str:
        """Return all checkpoints as a JSON text that ``import_checkpoints`` reads."""
        return export_json(await self.get_all())

    async def export_stream(self) -> AsyncIterator[bytes]:
        """Yield the text of :meth:`export` in pieces, as of one moment, with little of it in memory.

        A connection is in use until the last piece is read or the iterator is closed.
        """
        opened = False
        async with self._source.snapshot() as snapshot:
            async for checkpoint in checkpoints_of(snapshot, self.session_id, self._codec):
                raw = orjson.dumps(checkpoint.to_dict(), option=orjson.OPT_INDENT_2)
                yield (b",\n  " if opened else b"[\n  ") + raw.replace(b"\n", b"\n  ")
                opened = True
        yield b"\n]" if opened else b"[]"

    async def count(self) -> int:
        """Return the number of checkpoints."""
        rows = await self._source.fetch("count", self.session_id)
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

    async def _all(self, statement: str, wanted: _Filter) -> list[Checkpoint]:
        return await self._some(statement, None, _HIGHEST, wanted)

    async def _some(self, statement: str, at: int | None, limit: int, wanted: _Filter) -> list[Checkpoint]:
        name, metadata, after, first, last = wanted
        if after is not None and in_utc(after) != after:
            # Before the first moment that UTC has, so everything is later; or after the last, so nothing is.
            after = None if after < _EARLIEST else _LATEST
        first = None if first is None else in_utc(first)
        last = None if last is None else in_utc(last)
        if at is None:
            at = _HIGHEST if statement == "newest_first" else 0
        if isinstance(metadata, Mapping):
            metadata = dict(metadata)
        contained = None if metadata is None else metadata_json(metadata).decode()
        if not _possible(name):
            return []
        rows = await self._source.fetch(
            statement, self.session_id, at, name, after, first, last, contained, limit
        )
        return await decoded_rows(rows, self._codec)

    async def _first(self, rows: list[Any]) -> Checkpoint | None:
        return (await decoded_rows(rows[:1], self._codec))[0] if rows else None


async def checkpoints_of(
    snapshot: ReadTransaction | SnapshotSet, session_id: str, codec: "Codec | None" = None
) -> AsyncIterator[Checkpoint]:
    """Yield a session's checkpoints at the moment of ``snapshot``, oldest first, a few in memory at a time.

    Without a codec, encrypted data comes as it is.
    """
    unfiltered = (None, None, None, None, None)
    async with aclosing(snapshot.rows("oldest_first", session_id, 0, *unfiltered, _HIGHEST)) as rows:
        async for checkpoint in decoded_stream(rows, codec):
            yield checkpoint


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC, or the nearest one that has a year there: others have none in Postgres' client.

    Raises:
        NaiveDatetimeError: It has no time zone.
    """
    return from_micros(clamp_micros(to_micros(moment)))


def checked_limit(limit: int) -> int:
    """Return ``limit``. Raise InvalidArgumentError if it is not valid."""
    if not isinstance(limit, int) or limit < 1:
        raise InvalidArgumentError(f"limit must be at least 1, not {quoted(limit)}")
    return min(limit, _HIGHEST)


def _possible(text: str | None) -> bool:
    """Return whether an id or a name is possible, or is None. Raise InvalidArgumentError if it is not text."""
    if text is not None and not isinstance(text, str):
        raise InvalidArgumentError(f"ids and names are strings, not {type(text).__name__}")
    return text is None or text_problem(text, MAX_CHECKPOINT_ID) is None


def _moments(between: tuple[datetime, datetime]) -> tuple[datetime, datetime]:
    match between:
        case (first, last):
            return first, last
    raise InvalidArgumentError(f"between is a pair of times, from and to, not {quoted(between)}")


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    require_text("cursor", cursor)
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidArgumentError(
            f"{quoted(cursor)} is not a cursor of this list: pass the one that a page gave"
        )
    return int(cursor)
