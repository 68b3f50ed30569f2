"""The in-memory checkpoint manager: the same semantics as the service, for tests and single-process use.

A thin skin over :mod:`waypost.model.session`: it supplies what a log would (time, position, the stored bytes) and
keeps the data that the index leaves out.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from waypost.arguments import require_callable, require_text
from waypost.errors import InvalidArgumentError, InvalidCommandError, UnknownCheckpointError, quoted
from waypost.model.checkpoint import Checkpoint, Summary, checkpoint_id, export_json, summarise
from waypost.model.commands import (
    Action,
    Clear,
    Command,
    Configure,
    Delete,
    Erase,
    Expire,
    Import,
    OnConflict,
    Pin,
    Rollback,
    Unpin,
)
from waypost.model.decisions import (
    Accepted,
    Cleared,
    Configured,
    Created,
    Deleted,
    Erased,
    Expired,
    Imported,
    Pinned,
    Rejected,
    RolledBack,
    Unchanged,
    Unpinned,
)
from waypost.model.index import Entry, Session
from waypost.model.limits import Default, checked_default
from waypost.model.retention import RetentionPolicy
from waypost.model.session import decide, evolve
from waypost.model.times import from_micros, taken_micros, to_micros
from waypost.wire.encode import check_session_id, create_action, policy_changes
from waypost.wire.event_types import EventType

log = logging.getLogger("waypost")
_A = TypeVar("_A", bound=Accepted)


class CheckpointManager:
    """Checkpoints of one session in memory, for tests and single-process use.

    The semantics are those of the service. Reads have the names and results of :class:`waypost.SessionReader`. It is
    not safe to use from several threads at the same time.

    Args:
        session_id: The session's id.
        max_checkpoints: The most checkpoints it keeps.
        compress_after: Above this number, keep only the latest checkpoint of each name.
        keep_recent: The newest checkpoints, which compression leaves alone.
        default: A function that converts values that JSON can't represent, as for :class:`waypost.PublisherOptions`.
    """

    def __init__(
        self,
        session_id: str,
        max_checkpoints: int = 100,
        compress_after: int = 50,
        keep_recent: int = 20,
        *,
        default: Default | None = None,
    ) -> None:
        self._json_default = checked_default(default)
        self._session = Session(check_session_id(session_id))
        self._default = RetentionPolicy(max_checkpoints, compress_after, keep_recent)
        self._stored: dict[int, tuple[bytes, bytes]] = {}
        self._position = -1
        self._callbacks: dict[object, Callable[[Checkpoint], None]] = {}

    def __repr__(self) -> str:
        return f"<CheckpointManager of {self.session_id!r}: {len(self)} of {self._session.counter} checkpoints kept>"

    @property
    def session_id(self) -> str:
        """Id of the session."""
        return self._session.session_id

    @property
    def policy(self) -> RetentionPolicy:
        """Retention policy in effect."""
        return self._session.policy or self._default

    def create(
        self,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
    ) -> Checkpoint:
        """Append a checkpoint and apply retention.

        Args:
            name: What happened, such as ``"task_done"``.
            data: What the agent knows, as a JSON object.
            metadata: A small JSON object to search by.
            timestamp: When it happened, with a time zone; now by default.

        Raises:
            InvalidCommandError: An argument breaks the contract; the message names it.
        """
        action = create_action(name, data, metadata, self._json_default)
        made = self._apply(action, Created, timestamp=timestamp)
        self._stored[made.entry.number] = (action.data, action.metadata)
        checkpoint = self._checkpoint(made.entry)
        self._discard(made.removed)
        self._announce(checkpoint)
        return checkpoint

    def clear(self) -> int:
        """Delete all checkpoints, including pinned ones, and return how many there were.

        Their numbers are not given again.
        """
        removed = self._apply(Clear(), Cleared).removed
        self._discard(removed)
        return len(removed)

    def pin(self, checkpoint_id: str) -> None:
        """Pin a checkpoint, so that retention never removes it.

        Raises:
            UnknownCheckpointError: There is no such checkpoint.
            InvalidCommandError: As many are pinned as may be.
        """
        self._discard(self._apply(Pin(_checked_id(checkpoint_id)), Pinned).removed)

    def unpin(self, checkpoint_id: str) -> None:
        """Unpin a checkpoint, so that retention may remove it.

        Raises:
            UnknownCheckpointError: There is no such checkpoint.
        """
        self._discard(self._apply(Unpin(_checked_id(checkpoint_id)), Unpinned).removed)

    def delete(self, checkpoint_id: str) -> None:
        """Delete a checkpoint. Its number is not given again.

        Raises:
            UnknownCheckpointError: There is no such checkpoint.
        """
        deleted = self._apply(Delete(_checked_id(checkpoint_id)), Deleted)
        self._discard((deleted.number, *deleted.removed))

    def rollback(self, checkpoint_id: str, *, discard_later: bool = False) -> Checkpoint:
        """Return the checkpoint to go back to. With ``discard_later``, delete all with a higher number.

        Raises:
            UnknownCheckpointError: There is no such checkpoint.
        """
        found = self.get(checkpoint_id)
        self._discard(self._apply(Rollback(checkpoint_id, discard_later), RolledBack).removed)
        if found is None:
            raise AssertionError("a rollback to an unknown checkpoint is refused by decide")
        return found

    def configure(self, **changes: int | float | None) -> RetentionPolicy:
        """Change fields of the retention policy, apply it and return it. ``max_age`` is in seconds.

        A manager holds what it is given, and encrypts nothing. With ``encrypted=True`` it rejects data that is not
        encrypted, as a session of the service does.

        Raises:
            InvalidCommandError: A field is unknown or out of bounds.
        """
        configured = self._apply(Configure(policy_changes(changes)), Configured)
        self._discard(configured.removed)
        return self.policy

    def expire(self, idle_since: datetime, *, pinned: bool = False) -> int:
        """Delete all checkpoints if the last accepted command is older than ``idle_since``; return how many.

        Pinned checkpoints stay, unless ``pinned`` is true. 0 is returned if the session was not idle.

        Raises:
            NaiveDatetimeError: ``idle_since`` has no time zone.
            InvalidCommandError: ``idle_since`` is in the future.
        """
        decision = self._decided(Expire(to_micros(idle_since), pinned))
        if not isinstance(decision, Expired):
            return 0
        self._discard(decision.removed)
        return len(decision.removed)

    def erase(self) -> int:
        """Delete everything for good, and return how many checkpoints there were.

        Every later command but another erasure raises InvalidCommandError with the code ``erased``.
        """
        removed = self._apply(Erase(), Erased).removed
        self._discard(removed)
        return len(removed)

    def import_checkpoints(self, json_text: str | bytes, on_conflict: OnConflict = "skip") -> int:
        """Import a list that :meth:`export` made, and return how many checkpoints were imported or replaced.

        ``on_conflict`` says what to do with a number that is taken: ``"skip"``, ``"replace"`` or ``"reject"``.

        Raises:
            InvalidCommandError: The list can't be read, or ``"reject"`` met a conflict.
        """
        # Imported here, because users that import nothing should not have to load pydantic.
        from waypost.wire.decode import parse_body

        # A lone surrogate is refused as what it is, text that is not UTF-8, with all other broken JSON.
        listed = json_text.encode(errors="surrogatepass") if isinstance(json_text, str) else json_text
        if not isinstance(listed, bytes):
            raise InvalidArgumentError(f"the list must be JSON text, not {quoted(json_text)}")
        body = (
            b'{"checkpoints":'
            + listed
            + b',"on_conflict":"'
            + str(on_conflict).encode(errors="surrogatepass")
            + b'"}'
        )
        action = parse_body(EventType.IMPORT, body)
        if not isinstance(action, Import):
            raise AssertionError("an import body parses to an import")
        imported = self._apply(action, Imported)
        created: dict[int, Checkpoint] = {}
        for placed in imported.placed:
            if placed.entry is None:
                continue
            content = (placed.item.data, placed.item.metadata)
            self._stored[placed.number] = content
            # A later item of the list may replace an earlier one: what is announced is what came out.
            if placed.outcome == "imported" or placed.number in created:
                created[placed.number] = make_checkpoint(self.session_id, placed.entry, *content)
        self._discard(imported.removed)
        for checkpoint in created.values():
            self._announce(checkpoint)
        return imported.count("imported") + imported.count("replaced")

    def on_checkpoint(self, callback: Callable[[Checkpoint], None]) -> Callable[[], None]:
        """Call ``callback`` with each created checkpoint, and return a function that stops this.

        If a callback raises, that is logged to the logger ``waypost``, and the others are still called.
        """
        require_callable("the callback", callback)
        registration = object()
        self._callbacks[registration] = callback

        def stop() -> None:
            self._callbacks.pop(registration, None)

        return stop

    def get(self, checkpoint_id: str) -> Checkpoint | None:
        """Return the checkpoint with this id, or the newest that was imported under it, or None."""
        require_text("a checkpoint id", checkpoint_id)
        entry = self._session.find(checkpoint_id)
        return None if entry is None else self._checkpoint(entry)

    def get_by_name(self, name: str) -> list[Checkpoint]:
        """Return the checkpoints with this name, newest first."""
        return [checkpoint for checkpoint in reversed(self.get_all()) if checkpoint.name == name]

    def get_latest(self, name: str | None = None) -> Checkpoint | None:
        """Return the checkpoint with the highest number, optionally of those with a name, or None."""
        for entry in reversed(self._session.live()):
            if name is None or entry.name == name:
                return self._checkpoint(entry)
        return None

    def get_all(self) -> list[Checkpoint]:
        """Return all checkpoints, oldest first."""
        return [self._checkpoint(entry) for entry in self._session.live()]

    def get_since(self, t: datetime) -> list[Checkpoint]:
        """Return the checkpoints with a timestamp after ``t``, in the order of their numbers.

        Raises:
            NaiveDatetimeError: ``t`` has no time zone.
        """
        after = to_micros(t)
        return [self._checkpoint(entry) for entry in self._session.live() if entry.taken_at > after]

    def get_between(self, a: datetime, b: datetime) -> list[Checkpoint]:
        """Return the checkpoints with a timestamp from ``a`` to ``b``, inclusive, in the order of their numbers.

        Raises:
            NaiveDatetimeError: ``a`` or ``b`` has no time zone.
        """
        first, last = to_micros(a), to_micros(b)
        return [self._checkpoint(e) for e in self._session.live() if first <= e.taken_at <= last]

    def rollback_to(self, checkpoint_id: str) -> dict[str, Any] | None:
        """Change nothing, and return the data of this checkpoint, or None if there is none."""
        found = self.get(checkpoint_id)
        return None if found is None else found.data

    def get_summary(self) -> Summary:
        """Return counts, names, the first and the last checkpoint, and the time between them in seconds."""
        return summarise(self.get_all())

    def export(self) -> str:
        """Return all checkpoints as a JSON text that ``import_checkpoints`` reads."""
        return export_json(self.get_all())

    def __len__(self) -> int:
        return len(self._session)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.get_all())

    def _apply(self, action: Action, kind: type[_A], timestamp: datetime | None = None) -> _A:
        decision = self._decided(action, timestamp)
        if not isinstance(decision, kind):
            raise AssertionError(f"{action!r} was answered by {decision!r}")
        return decision

    def _decided(self, action: Action, timestamp: datetime | None = None) -> Accepted | Unchanged:
        now = to_micros(datetime.now(UTC))
        self._position += 1
        command = Command(
            id=None,
            position=self._position,
            taken_at=now if timestamp is None else taken_micros(timestamp),
            recorded_at=now,
            action=action,
        )
        decision = decide(self._session, command, self._default)
        if isinstance(decision, Rejected):
            if decision.code == "unknown-checkpoint":
                raise UnknownCheckpointError(decision.message)
            raise InvalidCommandError(decision.code, decision.message)
        if isinstance(decision, Accepted):
            evolve(self._session, command, decision)
        return decision

    def _checkpoint(self, entry: Entry) -> Checkpoint:
        return make_checkpoint(self.session_id, entry, *self._stored[entry.number])

    def _discard(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            del self._stored[number]

    def _announce(self, checkpoint: Checkpoint) -> None:
        for callback in tuple(self._callbacks.values()):
            try:
                callback(checkpoint)
            except Exception:
                log.exception("a checkpoint callback failed for %s; the checkpoint is kept", checkpoint.id)


def _checked_id(checkpoint_id: str) -> str:
    require_text("a checkpoint id", checkpoint_id)
    return checkpoint_id


def make_checkpoint(session_id: str, entry: Entry, data: bytes, metadata: bytes) -> Checkpoint:
    """The checkpoint of an index entry and its stored bytes."""
    return Checkpoint(
        id=checkpoint_id(session_id, entry.number),
        name=entry.name,
        timestamp=from_micros(entry.taken_at),
        recorded_at=from_micros(entry.recorded_at),
        raw_data=data,
        raw_metadata=metadata,
        pinned=entry.pinned,
        imported_id=entry.imported_id,
    )
