"""A session service of Google's Agent Development Kit (ADK): one record per event.

Needs the extra ``google-adk``.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

try:
    from google.adk.errors import StaleSessionError
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events import Event, EventActions
    from google.adk.sessions import BaseSessionService, Session, State
    from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
except ImportError as error:
    raise ImportError(
        "waypost.adapters.google_adk needs google-adk: install it with pip install 'waypost[google-adk]'"
    ) from error

from typing_extensions import override

from waypost.adapters._google_adk_log import (
    CREATED,
    DELETED,
    EVENT,
    EVENTS,
    SHARED,
    STATE,
    Marker,
    SessionLog,
    SharedState,
    scoped,
    taken_at,
)
from waypost.adapters.allowed_types import MissingValueError, UnreadableValueError
from waypost.adapters.backend import Backend
from waypost.adapters.loose_json import member, value_of
from waypost.adapters.records import (
    Record,
    Row,
    gone_with_parts,
    new_tag,
    prefix_end,
    require_searchable,
    session_path,
    storable,
)
from waypost.adapters.turns import Turns
from waypost.errors import quoted

__all__ = ["WaypostSessionService"]

PREFIX: Final = "google-adk/"
APP_PREFIX: Final = "google-adk-app/"
USER_PREFIX: Final = "google-adk-user/"
_ADVICE: Final = "Continue in a new session"
_LONGEST: Final = 200  # characters of a text in metadata that nothing is found by


class WaypostSessionService(BaseSessionService):
    """Service of sessions: ``Runner(agent=agent, app_name="app", session_service=WaypostSessionService(backend))``.

    A write returns once a worker has applied it, because only the log shows whether a session object was stale.

    Args:
        backend: The connection to Kafka and Postgres.
        stale_ok: Whether :meth:`get_session` and :meth:`get_user_state` may lack what other processes wrote last. They
            then need no Kafka. An event that is appended to such a session may be rejected as stale.
    """

    def __init__(self, backend: Backend, *, stale_ok: bool = False) -> None:
        self._backend = backend
        self._stale_ok = stale_ok
        self._turns = Turns()

    @override
    def __repr__(self) -> str:
        return f"<WaypostSessionService on {self._backend!r}>"

    @override
    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: There is one with this id.
            InvalidCommandError: A name can't be searched for.
        """
        wanted = (session_id or "").strip() or None
        return await self._backend.join(self._create(app_name, user_id, state or {}, wanted))

    @override
    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """Return a session with its events and all of its state, or None if there is none."""
        return await self._backend.join(self._get(app_name, user_id, session_id.strip(), config))

    @override
    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """Return all sessions of an app or of one of its users, as of one moment, without their events."""
        return ListSessionsResponse(sessions=await self._backend.join(self._list(app_name, user_id)))

    @override
    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session, if it exists. State of its app and its user stays."""
        await self._backend.join(self._delete(session_path(PREFIX, app_name, user_id, session_id.strip())))

    @override
    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user, with keys that lack the prefix ``user:``."""
        found = await self._backend.join(self._shared(session_path(USER_PREFIX, app_name, user_id)))
        return found.values

    @override
    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event to a session, in the log and in the object.

        Raises:
            StaleSessionError: Another writer appended an event since the object was read. Nothing was stored: get the
                session again.
            SessionNotFoundError: The session was deleted or never created.
            SessionFullError: The session holds as many events as it can.
            ResultTimeoutError: The worker did not answer in time. The event may still be stored; appending it again to
                the same object stores it once.
        """
        if event.partial or any(each.id == event.id and each == event for each in session.events):
            return event
        # In this order also in the ADK's own services: agents of one invocation see each other's temporary state.
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        await self._backend.join(self._append(session, event))
        return self._commit_event_to_session(session, event)

    # Writes.

    async def _create(self, app: str, user: str, state: dict[str, Any], wanted: str | None) -> Session:
        for what, name in (("app_name", app), ("user_id", user), ("session_id", wanted or "")):
            require_searchable(what, name)
        session_id = wanted or str(uuid.uuid4())
        path = session_path(PREFIX, app, user, session_id)
        parts = scoped(EventActions(state_delta=state).model_dump(mode="json")["state_delta"])
        now, tag = time.time(), new_tag()
        described = {"app": app, "user": user, "session": session_id, "at": now, "tag": tag} | _flags(parts)
        shared = {SHARED: {"app": parts["app"], "user": parts["user"]}} if described["shared"] else {}
        async with self._turns.of(path):
            # Nobody else can have made up the same id.
            log = SessionLog() if wanted is None else await self._log(path)
            marker = None
            if log.created is None:
                record = Record(CREATED, _members({STATE: parts["session"]} | shared), described)
                marker, _ = await self._add(path, record, log.marker._replace(born=tag))
        if marker is None:
            raise AlreadyExistsError(f"Session with id {session_id} already exists.")
        await self._change_shared(app, user, parts, tag)
        merged = parts["session"] | _prefixed(*await self._shared_of(app, user))
        return _session(app, user, session_id, marker, now, merged)

    async def _append(self, session: Session, event: Event) -> None:
        app, user = session.app_name, session.user_id
        path = session_path(PREFIX, app, user, session.id)
        dumped = event.model_dump(mode="json", exclude_none=True)
        parts = scoped(dumped["actions"]["state_delta"])
        async with self._turns.of(path):
            before = Marker.parsed(session._storage_update_marker) or await self._found_again(path, session)
            described = _described(event) | {
                "after": before.tag,
                "born": before.born,
                "tag": new_tag(),
                **_flags(parts),
            }
            record = Record(EVENT, member(EVENT, dumped), described)
            marker, log = await self._add(path, record, before)
            if marker is None:
                marker = await self._earlier_attempt(path, log, before, dumped, session.id)
            await self._change_shared(app, user, parts, marker.tag)
            session._storage_update_marker = str(marker)
            session.last_update_time = event.timestamp

    async def _add(self, path: str, record: Record, before: Marker) -> tuple[Marker | None, SessionLog]:
        """Add a record. If it does not count, delete it again. The log is returned if it had to be read to tell."""
        added = await self._backend.append(path, [record], durability="applied", advice=_ADVICE)
        number = max(added.numbers)
        marker = Marker(number, number, record.metadata["tag"], before.born)
        # Nobody added a record in between, and what it follows was not removed, as by a rollback or an expiry.
        if number - before.last == len(added.numbers) and (
            not before.tag or before.tag in await self._backend.values(path, "tag", before.number)
        ):
            return marker, SessionLog()
        log = SessionLog.read(await self._backend.rows(path, "index"))
        if log.holds(marker.tag):
            return marker, log
        await self._backend.delete(path, sorted(added.numbers, reverse=True))
        return None, log

    async def _earlier_attempt(
        self, path: str, log: SessionLog, before: Marker, dumped: dict[str, Any], session_id: str
    ) -> Marker:
        """Return where this event is stored, if an earlier call stored it after all."""
        if log.created is None:
            raise SessionNotFoundError(f"Session {session_id} not found.")
        if (row := log.follower(before.tag)) is not None:
            stored = await self._backend.stored(path, "numbers", [row.number])
            if stored and _event(path, stored[0]) == Event.model_validate(dumped):
                return Marker(log.last, row.number, row.metadata["tag"], before.born)
        raise _stale(session_id)

    async def _found_again(self, path: str, session: Session) -> Marker:
        """Return the marker of a session object that carries none, because it was copied as JSON."""
        log = await self._log(path)
        if log.created is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        stored = log.events[-1].metadata.get("id") if log.events else None
        if stored != (session.events[-1].id if session.events else None):
            raise _stale(session.id)
        return log.marker

    async def _delete(self, path: str) -> None:
        async with self._turns.of(path):
            log = SessionLog.read(await self._backend.rows(path, "index"))
            if log.created is not None or log.orphan is not None:
                deleted = Record(DELETED, {}, {"tag": new_tag()})
                await self._backend.append(path, [deleted], durability="applied", spare=True)
            elif log.last == 0:
                return
            # One by one, and not a clear: a session that is created meanwhile must stay.
            rows = await self._backend.rows(path, "index")
            end = max((row.number for row in rows if row.name == DELETED), default=0)
            if gone := [row.number for row in rows if row.number < end]:
                await self._backend.delete(path, gone)

    async def _change_shared(self, app: str, user: str, parts: dict[str, dict[str, Any]], event: str) -> None:
        """Store what an event changes of the state of an app and of a user."""
        changes = [
            (session_path(APP_PREFIX, app), {"app": app}, parts.get("app")),
            (session_path(USER_PREFIX, app, user), {"app": app, "user": user}, parts.get("user")),
        ]
        await asyncio.gather(
            *(self._change(path, described, delta, event) for path, described, delta in changes if delta)
        )

    async def _change(self, path: str, described: dict[str, Any], delta: dict[str, Any], event: str) -> None:
        record = Record(STATE, member(STATE, delta), {**described, "event": event})
        added = await self._backend.append(path, [record], durability="applied", advice="Try again later")
        if added.due:
            self._backend.tidy(path, lambda: self._summarize(path, described))

    async def _summarize(self, path: str, described: dict[str, Any]) -> None:
        """Replace the changes of a state with one record. Those that are written meanwhile stay, and come after it."""
        rows = await self._backend.rows(path, "records")
        found = SharedState.read(rows)
        data = _members({STATE: found.values, EVENTS: found.newest_events()})
        summary = Record(STATE, data, {**described, "covers": rows[-1].number})
        await self._backend.append(path, [summary], durability="applied", spare=True)
        index = await self._backend.rows(path, "index")
        gone = {row.number for row in index if row.number <= rows[-1].number}
        await self._backend.delete(path, gone_with_parts(index, gone))

    # Reads.

    async def _log(self, path: str) -> SessionLog:
        return _whole(path, SessionLog.read(await self._backend.rows(path, "index")))

    async def _get(
        self, app: str, user: str, session_id: str, config: GetSessionConfig | None
    ) -> Session | None:
        path = session_path(PREFIX, app, user, session_id)
        rows, shared = await asyncio.gather(
            self._backend.rows(path, "records", stale_ok=self._stale_ok), self._shared_of(app, user)
        )
        log = _whole(path, SessionLog.read(rows))
        if log.created is None:
            return None
        if await self._complete(app, user, log, *shared):
            shared = await self._shared_of(app, user)
        state = log.state() | _prefixed(*shared)
        session = _session(app, user, session_id, log.marker, log.last_update_time, state)
        session.events = [_event(path, row) for row in _chosen(log.events, config or GetSessionConfig())]
        return session

    async def _complete(
        self, app: str, user: str, log: SessionLog, of_app: SharedState, of_user: SharedState
    ) -> bool:
        """Store what the newest event changes of shared state, if its writer did not, and tell whether that was so.

        Earlier events are complete: nobody appends to an object whose newest event is not.
        """
        changed = log.shared()
        if not changed or log.newest is None or self._stale_ok:
            return False
        states = {"app": of_app, "user": of_user}
        missing = {
            name: changed[name] for name in states if changed.get(name) and states[name].lacks(log.newest)
        }
        await self._change_shared(app, user, missing, log.newest.metadata["tag"])
        return bool(missing)

    async def _list(self, app: str, user: str | None) -> list[Session]:
        prefix = session_path(PREFIX, app, user or "", "")
        logs = {}
        by_path = await self._rows_below(prefix if user is not None else prefix.removesuffix("/"))
        for path, rows in by_path.items():
            log = _whole(path, SessionLog.read(rows))
            if log.created is not None and (names := _names(path, log.created)) is not None:
                logs[names] = log
        of_app, of_users = await self._shared_of_users(app, user)
        completed = [
            await self._complete(app, name, log, of_app, of_users(name)) for (_, name, _), log in logs.items()
        ]
        if any(completed):
            of_app, of_users = await self._shared_of_users(app, user)
        found = []
        for names, log in logs.items():
            state = log.state() | _prefixed(of_app, of_users(names[1]))
            found.append(_session(*names, log.marker, log.last_update_time, state))
        return sorted(found, key=lambda each: (each.last_update_time, each.user_id, each.id))

    async def _rows_below(self, prefix: str) -> dict[str, list[Row]]:
        return await self._backend.rows_among("google_adk_sessions", prefix, prefix_end(prefix))

    async def _shared(self, path: str) -> SharedState:
        return SharedState.read(await self._backend.rows(path, "records", stale_ok=self._stale_ok))

    async def _shared_of(self, app: str, user: str) -> tuple[SharedState, SharedState]:
        return await asyncio.gather(
            self._shared(session_path(APP_PREFIX, app)), self._shared(session_path(USER_PREFIX, app, user))
        )

    async def _shared_of_users(
        self, app: str, user: str | None
    ) -> tuple[SharedState, Callable[[str], SharedState]]:
        """Return the state of an app, and a function that returns that of a user: of this one, or of any."""
        if user is not None:
            of_app, of_user = await self._shared_of(app, user)
            return of_app, lambda _: of_user
        of_app = await self._shared(session_path(APP_PREFIX, app))
        by_path = await self._rows_below(session_path(USER_PREFIX, app, ""))
        of_users = {path: SharedState.read(rows) for path, rows in by_path.items()}
        return of_app, lambda user: of_users.get(session_path(USER_PREFIX, app, user), SharedState())


def _prefixed(of_app: SharedState, of_user: SharedState) -> dict[str, Any]:
    return {
        **{State.APP_PREFIX + key: value for key, value in of_app.values.items()},
        **{State.USER_PREFIX + key: value for key, value in of_user.values.items()},
    }


def _flags(parts: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Return whether a record changes any state, and whether it changes that of the app or the user."""
    return {"delta": any(parts.values()), "shared": bool(parts["app"] or parts["user"])}


def _members(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for key, each in values.items() for name, value in member(key, each).items()}


def _session(
    app: str, user: str, session_id: str, marker: Marker, updated: float, state: dict[str, Any]
) -> Session:
    session = Session(app_name=app, user_id=user, id=session_id, state=state, last_update_time=updated)
    session._storage_update_marker = str(marker)  # where the ADK's own services have their revision
    return session


def _names(path: str, created: Row) -> tuple[str, str, str] | None:
    """Return the names that a session was created with. Other writers to the topic can put in anything else."""
    app, user, session_id = (created.metadata.get(key) for key in ("app", "user", "session"))
    if not (isinstance(app, str) and isinstance(user, str) and isinstance(session_id, str)):
        return None
    return (app, user, session_id) if session_path(PREFIX, app, user, session_id) == path else None


def _whole(path: str, log: SessionLog) -> SessionLog:
    if log.orphan is not None:
        raise MissingValueError(
            f"The record that record {log.orphan.number} of {path!r} follows is missing, and the adapter "
            "never removes it alone. Nothing was read. Roll the session back to an earlier record to "
            "continue from there."
        )
    return log


def _described(event: Event) -> dict[str, Any]:
    """The searchable metadata, and the fields that a listing needs."""
    told = {"id": event.id, "author": event.author, "invocation": event.invocation_id}
    return {key: text for key, text in told.items() if len(text) <= _LONGEST and storable(text)} | {
        "at": event.timestamp
    }


def _event(path: str, row: Row) -> Event:
    try:
        return Event.model_validate(value_of(EVENT, row.data))
    except ValueError as error:
        raise UnreadableValueError(
            f"Record {row.number} of {path!r} is not an event of the ADK: {quoted(error)}. Nothing was read. Roll "
            "the session back to an earlier record to continue from there."
        ) from error


def _chosen(rows: list[Row], config: GetSessionConfig) -> list[Row]:
    if config.num_recent_events is not None:
        rows = rows[max(len(rows) - config.num_recent_events, 0) :]
    if (after := config.after_timestamp) is not None:
        older = (place for place in reversed(range(len(rows))) if taken_at(rows[place]) < after)
        rows = rows[next(older, -1) + 1 :]
    return rows


def _stale(session_id: str) -> StaleSessionError:
    return StaleSessionError(
        f"Session {session_id} has an event that this object lacks, so nothing was stored. Get the session again."
    )
