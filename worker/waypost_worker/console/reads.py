"""The console's reads: sessions and rejected commands from Postgres, by a reader's statements."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from waypost.model.checkpoint import Checkpoint
from waypost.model.tenants import TenantScope
from waypost.reader.client import Reader
from waypost.shards import shard_of
from waypost_worker.console.pages.rejected import RejectedRow, rejected_row
from waypost_worker.console.pages.search import Search
from waypost_worker.console.pages.sessions import (
    CheckpointPage,
    SessionList,
    SessionPage,
    session_page,
    session_rows,
    shown_entries,
)
from waypost_worker.operations.stored_session import StoredSession, read_stored_session

PAGE: Final = 50
#: How many sessions are examined for one page, if their checkpoints have to be looked at.
_EXAMINED: Final = 200
_HERE: Final = "waypost_worker.console/"
_OPERATIONS: Final = "waypost_worker.operations/"


class Reads:
    """The console's reads."""

    def __init__(self, reader: Reader, scope: TenantScope) -> None:
        self.reader = reader
        self.scope = scope

    async def sessions(
        self, search: Search, since: datetime | None, only_rejected: bool, cursor: str | None
    ) -> SessionList:
        """Return a page of sessions, the latest activity first."""
        narrow = search.looks_inside or only_rejected
        page = await self.reader.recent_sessions(
            prefix=search.prefix, active_since=since, limit=_EXAMINED if narrow else PAGE, cursor=cursor
        )
        metadata = None if search.metadata is None else orjson.dumps(search.metadata).decode()
        ids = [info.session_id for info in page]
        found = await self._all(f"{_HERE}session_details", ids, search.name, metadata)
        rows = session_rows(page, {row["session_id"]: row for row in found})
        rows = [row for row in rows if row.rejected] if only_rejected else rows
        return SessionList(tuple(rows), page.cursor, len(ids) if narrow else None)

    async def session(self, session_id: str, before: int | None, with_data: bool) -> SessionPage | None:
        """Return a session with a page of its checkpoints, or None if it is unknown."""
        async with self.reader.snapshot() as snapshot:
            stored = await read_stored_session(snapshot, session_id)
            if stored is None:
                return None
            numbers = [entry.number for entry in shown_entries(stored, before, PAGE)] if with_data else []
            metadata = await snapshot.fetch(f"{_HERE}metadata", session_id, numbers)
            details = await snapshot.fetch(f"{_HERE}rejections_of", session_id)
        by_number = {row["number"]: orjson.loads(row["metadata"]) for row in metadata}
        return session_page(stored, before, PAGE, by_number, details[0]["count"])

    async def stored(self, session_id: str) -> StoredSession | None:
        """Return a session as previews need it, or None if it is unknown."""
        async with self.reader.snapshot() as snapshot:
            return await read_stored_session(snapshot, session_id)

    async def checkpoint(self, session_id: str, number: int) -> CheckpointPage | None:
        """Return a checkpoint and where it comes from."""
        async with self.reader.snapshot() as snapshot:
            rows = await snapshot.fetch(f"{_HERE}provenance", session_id, number)
        found = await self.reader.session(session_id).get(f"{session_id}:{number}")
        if not rows or found is None or found.number != number:
            return None
        row = rows[0]
        return CheckpointPage(
            found, row["partition"], row["position"], row["command_id"], row["before"], row["after"]
        )

    async def get(self, identifier: str) -> Checkpoint | None:
        """Return a checkpoint by its id, of any session that the console shows."""
        session_id = identifier.rpartition(":")[0]
        return await self.reader.session(session_id).get(identifier) if self.scope.holds(session_id) else None

    async def barrier(self, session_id: str, timeout: float) -> None:
        """Wait until Postgres has what Kafka had acknowledged for a session."""
        await self.reader.barrier(session_id, timeout)

    async def partitions(self) -> list[Any]:
        """Return what Postgres knows of each partition."""
        return sorted(await self._all(f"{_HERE}partitions"), key=lambda row: row["partition"])

    async def rejected_since(self, hours: float) -> list[tuple[str, int]]:
        """Return how many commands were rejected recently, by code."""
        since = datetime.now(UTC) - timedelta(hours=hours)
        counts: dict[str, int] = {}
        for row in await self._all(f"{_HERE}rejected_counts", since):
            counts[row["code"]] = counts.get(row["code"], 0) + row["count"]
        return sorted(counts.items(), key=lambda pair: -pair[1])

    async def rejected(self, session: str | None, code: str | None, limit: int) -> list[RejectedRow]:
        """Return rejected commands, newest first."""
        rows = await self._all(f"{_OPERATIONS}rejected_list", session, code, limit, *self.scope.bounds)
        rows.sort(key=lambda row: row["recorded_at"], reverse=True)
        return [rejected_row(row) for row in rows[:limit]]

    async def refused(self, partition: int, offset: int) -> Any | None:
        """Return the row of a rejected command, or None if none is stored there."""
        async with self.reader.snapshot() as snapshot:
            part = snapshot.parts[shard_of(partition, len(snapshot.parts))]
            rows = await part.fetch(f"{_OPERATIONS}rejected_show", partition, offset, None)
        return rows[0] if rows and self.scope.holds(rows[0]["session_id"]) else None

    async def refused_at(self, partition: int, offset: int) -> Any | None:
        """Return the code and message of a rejected command, or None if none was rejected there."""
        async with self.reader.snapshot() as snapshot:
            part = snapshot.parts[shard_of(partition, len(snapshot.parts))]
            rows = await part.fetch(f"{_OPERATIONS}rejected_at", [partition], [offset])
        return rows[0] if rows else None

    async def _all(self, statement: str, *arguments: Any) -> list[Any]:
        """Return the rows of one of the console's statements from every database."""
        async with self.reader.snapshot() as snapshot:
            parts = await asyncio.gather(*(part.fetch(statement, *arguments) for part in snapshot.parts))
        return [row for rows in parts for row in rows]
