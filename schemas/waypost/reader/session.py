"""The reads of one session from Postgres: names and results of the in-memory manager, with filters and pages."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from waypost.model.checkpoint import Checkpoint, Summary, checkpoint_id, export_json, own_number
from waypost.model.limits import MAX_CHECKPOINT_ID, canonical_metadata, text_problem
from waypost.model.times import to_micros
from waypost.reader.pages import CheckpointPage
from waypost.reader.pool import ReadTransaction
from waypost.reader.sharding import SessionSource, SnapshotSet
from waypost.wire.encode import check_session_id, metadata_json

_PAGE: Final = 100  # checkpoints may have 900 KB each
_HIGHEST: Final = 2**63 - 1


class _Filter(NamedTuple):
    """Which checkpoints are wanted. A timestamp lies after ``after``, and from ``first`` to ``last``."""

    name: str | None = None
    metadata: Mapping[str, Any] | None = None
    after: datetime | None = None
    first: datetime | None = None
    last: datetime | None = None


class SessionReader:
    """The reads of one session, with the names and results of :class:`waypost.CheckpointManager`.

    ``name``, ``metadata`` (containment) and the page arguments narrow a list. Lists come oldest first unless
    they say otherwise. Naive datetimes raise NaiveDatetimeError, a session id that none can have InvalidCommandError.
    """

    def __init__(self, source: SessionSource, session_id: str) -> None:
        if session_id != "":  # the session of an id without a colon, which holds nothing
            check_session_id(session_id)
        self.session_id = session_id
        self._source = source

    async def get(self, checkpoint_id: str) -> Checkpoint | None:
        """The checkpoint with this id, or the newest that was imported under it, or None."""
        if not _possible(checkpoint_id):
            return None
        number = own_number(self.session_id, checkpoint_id)
        rows = [] if number is None else await self._source.fetch("get", self.session_id, number)
        rows = rows or await self._source.fetch("get_imported", self.session_id, checkpoint_id)
        return _checkpoint(rows[0]) if rows else None

    async def get_by_name(self, name: str, *, metadata: Mapping[str, Any] | None = None) -> list[Checkpoint]:
        """All of that name, newest first."""
        return await self._all("newest_first", _Filter(name, metadata))

    async def get_latest(self, name: str | None = None) -> Checkpoint | None:
        """The highest number, optionally of that name, or None."""
        if not _possible(name):
            return None
        rows = await self._source.fetch("latest", self.session_id, name)
        return _checkpoint(rows[0]) if rows else None

    async def get_all(
        self, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> list[Checkpoint]:
        """All live checkpoints, oldest first."""
        return await self._all("oldest_first", _Filter(name, metadata))

    async def get_since(
        self, t: datetime, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> list[Checkpoint]:
        """Those with a timestamp strictly after ``t`` (aware), in order of number."""
        return await self._all("oldest_first", _Filter(name, metadata, after=t))

    async def get_between(
        self,
        a: datetime,
        b: datetime,
        *,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Checkpoint]:
        """Those with a timestamp from ``a`` to ``b``, both included, in order of number."""
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
        """At most ``limit`` checkpoints after ``cursor``, filtered."""
        checked_limit(limit)
        first, last = between or (None, None)
        statement = "newest_first" if newest_first else "oldest_first"
        wanted = _Filter(name, metadata, since, first, last)
        found = await self._some(statement, _number(cursor), limit, wanted)
        full = len(found) == limit
        return CheckpointPage(found, str(found[-1].number) if full else None)

    async def rollback_to(self, checkpoint_id: str) -> dict[str, Any] | None:
        """That checkpoint's data, or None. Changes nothing."""
        found = await self.get(checkpoint_id)
        return None if found is None else found.data

    async def get_summary(self) -> Summary:
        """Counts, names, first and last checkpoint, and the span in seconds."""
        async with self._source.snapshot() as snapshot:
            rows = await snapshot.fetch("summary", self.session_id)
            ends = [_checkpoint(row).to_dict() for row in await snapshot.fetch("ends", self.session_id)]
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
        """The interchange list as JSON text, indented by 2."""
        return export_json(await self.get_all())

    async def export_stream(self) -> AsyncIterator[bytes]:
        """The same text as :meth:`export`, of one moment, in pieces: without holding all of it.

        Holds a connection until it is read to its end or closed.
        """
        opened = False
        async with self._source.snapshot() as snapshot:
            async for checkpoint in checkpoints_of(snapshot, self.session_id):
                raw = orjson.dumps(checkpoint.to_dict(), option=orjson.OPT_INDENT_2)
                yield (b",\n  " if opened else b"[\n  ") + raw.replace(b"\n", b"\n  ")
                opened = True
        yield b"\n]" if opened else b"[]"

    async def count(self) -> int:
        """How many live checkpoints there are."""
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
        for moment in (after, first, last):
            if moment is not None:
                to_micros(moment)  # refuses naive ones
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
        return [_checkpoint(row) for row in rows]


async def checkpoints_of(
    snapshot: ReadTransaction | SnapshotSet, session_id: str
) -> AsyncIterator[Checkpoint]:
    """A session's live checkpoints at the moment of ``snapshot``, oldest first, a few in memory at a time."""
    unfiltered = (None, None, None, None, None)
    async for row in snapshot.rows("oldest_first", session_id, 0, *unfiltered, _HIGHEST):
        yield _checkpoint(row)


def checked_limit(limit: int) -> int:
    """``limit``, or ValueError."""
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return limit


def _possible(text: str | None) -> bool:
    """Whether an id or a name may be like this, or is not asked for; TypeError if it is no text."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"ids and names are strings, not {type(text).__name__}")
    return text is None or text_problem(text, MAX_CHECKPOINT_ID) is None


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
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
