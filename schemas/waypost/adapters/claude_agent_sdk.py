"""A session store of the Claude Agent SDK: one record per batch of transcript entries.

Needs the extra ``claude-agent-sdk``.
"""

from datetime import datetime
from typing import Any, Final, cast

try:
    from claude_agent_sdk import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStore,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )
except ImportError as error:
    raise ImportError(
        "waypost.adapters.claude_agent_sdk needs claude-agent-sdk: install it with "
        "pip install 'waypost[claude-agent-sdk]'"
    ) from error

import orjson
from typing_extensions import override

from waypost.adapters import _claude_summaries as summaries
from waypost.adapters.backend import Backend, Durability, checked_durability
from waypost.adapters.loose_json import member, value_of
from waypost.adapters.records import (
    Record,
    Row,
    containing,
    gone_with_parts,
    new_tag,
    prefix_end,
    require_searchable,
    session_path,
    with_own,
)
from waypost.adapters.turns import Turns

__all__ = ["WaypostSessionStore"]

PREFIX: Final = "claude-agent-sdk/"
ENTRIES: Final = "entries"
_ALL: Final = 2**31
_ADVICE: Final = "Start another session, or delete this one"


class WaypostSessionStore(SessionStore):
    """Store of transcripts: ``ClaudeAgentOptions(session_store=WaypostSessionStore(backend))``.

    A session and the transcripts of its subagents are one session of Waypost.

    Args:
        backend: The connection to Kafka and Postgres. Give its publisher a spool, so that neither an outage of Kafka
            nor a crash loses anything.
        durability: When ``append`` returns: once the publisher has the entries (``"accepted"``), once Kafka has them
            (``"logged"``), or once a worker applied them (``"applied"``). See :class:`waypost.adapters.Backend`.
        stale_ok: Whether :meth:`load` may lack what other processes wrote last. It then needs no Kafka.
    """

    def __init__(
        self, backend: Backend, *, durability: Durability = "accepted", stale_ok: bool = False
    ) -> None:
        self._backend = backend
        self._durability = checked_durability(durability)
        self._stale_ok = stale_ok
        self._turns = Turns()
        self._running = summaries.RunningSummaries()

    @override
    def __repr__(self) -> str:
        return f"<WaypostSessionStore on {self._backend!r}>"

    @override
    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add a batch of entries to a transcript, all of them or none, in the order of the calls.

        Raises:
            InvalidCommandError: Python's json can't write an entry, or the key can't be searched for.
            BufferFullError: The publisher's buffer and its spool are full.
            SessionFullError: The session holds as many batches as it can.
        """
        await self._backend.join(self._append(key, entries))

    @override
    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return all entries of a transcript in their order, or None if there is none.

        Of entries with the same ``uuid``, the first counts.
        """
        return await self._backend.join(self._load(key))

    @override
    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Return the sessions of a project and when Kafka got their newest entries, by the broker's clock."""
        found = await self._backend.join(self._list(project_key, counted=False))
        return [
            {"session_id": session_id, "mtime": _milliseconds(row["recorded_at"])}
            for session_id, row in found
        ]

    @override
    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries of a project's sessions.

        If several processes appended to it at the same time, its summary is computed again from its transcript.
        """
        return await self._backend.join(self._summaries(project_key))

    @override
    async def delete(self, key: SessionKey) -> None:
        """Delete a transcript. Those of its subagents leave with that of a session."""
        await self._backend.join(self._delete(key))

    @override
    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of a session's transcripts that have one."""
        session = session_path(PREFIX, key["project_key"], key["session_id"])
        rows = await self._backend.join(self._backend.rows(session, "index", stale_ok=self._stale_ok))
        found = (row.metadata.get("subpath") for row in rows if row.name == ENTRIES)
        return list(dict.fromkeys(each for each in found if isinstance(each, str)))

    async def _append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        if not entries:
            return
        session, subpath, tag = _session(key), key.get("subpath"), new_tag()
        for what in ("project_key", "session_id", "subpath"):
            require_searchable(what, str(key.get(what, "")))
        metadata: dict[str, Any] = {
            "project": key["project_key"],
            "session": key["session_id"],
            "subpath": subpath,
            "entries": len(entries),
            "tag": tag,
        }
        data = member(ENTRIES, entries)
        async with self._turns.of(session):
            if subpath is None:
                running = self._running.grown(session, key, tag, entries)
                metadata["summary"] = running.metadata()
                # Until it is certain that the batch comes next, nothing is known.
                self._running.forget(session)
            record = Record(ENTRIES, data, metadata)
            await self._backend.append(session, [record], durability=self._durability, advice=_ADVICE)
            if subpath is None:
                self._running.put(session, running)

    async def _load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        session, subpath = _session(key), key.get("subpath")
        known = self._running.of(session)
        own = await self._backend.own_rows(session, stale_ok=self._stale_ok)
        own = [row for row in own if row.name == ENTRIES and row.metadata["subpath"] == subpath]
        rows = with_own(await self._stored(session, subpath), own)
        batches = _batches(rows)
        if not batches:
            return None
        # Unless this process added a batch in the meantime, it now knows everything that the next one follows.
        if subpath is None and self._running.of(session) is known:
            self._running.put(session, summaries.folded(key, str(rows[0].metadata.get("tag")), batches))
        return _once_each(batches)

    async def _stored(self, session: str, subpath: str | None) -> list[Row]:
        """The stored batches of a transcript, oldest first."""
        found = await self._backend.stored(session, "newest", ENTRIES, containing({"subpath": subpath}), _ALL)
        return found[::-1]

    async def _list(self, project_key: str, *, counted: bool) -> list[tuple[str, dict[str, Any]]]:
        """The sessions of a project that have a main transcript, and what the database says of it."""
        prefix = session_path(PREFIX, project_key, "")
        found = []
        for row in await self._backend.among("claude_sessions", prefix, prefix_end(prefix), counted):
            said = {**row, "metadata": orjson.loads(row["metadata"])}
            session_id = said["metadata"].get("session")
            if isinstance(session_id, str) and row["session_id"] == session_path(
                PREFIX, project_key, session_id
            ):
                found.append((session_id, said))
        return found

    async def _summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        found = []
        for session_id, row in await self._list(project_key, counted=True):
            mtime = _milliseconds(row["recorded_at"])
            said = row["metadata"].get("summary")
            entry = summaries.stored(session_id, said, row["first"], row["batches"], mtime)
            if entry is None:
                key: SessionKey = {"project_key": project_key, "session_id": session_id}
                batches = _batches(await self._stored(_session(key), None))
                entry = summaries.folded(key, row["first"], batches).entry
                entry["mtime"] = mtime
            found.append(entry)
        return found

    async def _delete(self, key: SessionKey) -> None:
        session, subpath = _session(key), key.get("subpath")
        if subpath is None:
            self._running.forget(session)
            await self._backend.clear(session)
            return
        rows = await self._backend.rows(session, "index")
        gone = {row.number for row in rows if row.name == ENTRIES and row.metadata.get("subpath") == subpath}
        if gone:
            await self._backend.delete(session, gone_with_parts(rows, gone))


def _session(key: SessionKey) -> str:
    return session_path(PREFIX, key["project_key"], key["session_id"])


def _batches(rows: list[Row]) -> list[list[SessionStoreEntry]]:
    """Yield the entries in records. Other writers to the topic can put in records without any."""
    batches = []
    for row in rows:
        try:
            found = value_of(ENTRIES, row.data)
        except ValueError:
            continue
        if isinstance(found, list) and all(isinstance(each, dict) for each in found):
            batches.append(cast("list[SessionStoreEntry]", found))
    return batches


def _once_each(batches: list[list[SessionStoreEntry]]) -> list[SessionStoreEntry]:
    """All entries, without repetitions: the SDK sends a batch again if it does not know what became of it."""
    seen: set[str] = set()
    found = []
    for entry in (entry for batch in batches for entry in batch):
        uuid = entry.get("uuid")
        if isinstance(uuid, str):
            if uuid in seen:
                continue
            seen.add(uuid)
        found.append(entry)
    return found


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
