"""The commands as plain calls, the same for every publisher: validate, encode, stamp, hand over."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from waypost.deprecation import deprecated
from waypost.errors import InvalidCommandError
from waypost.model.commands import OnConflict
from waypost.model.limits import MAX_COMMAND_ID, Default, check_json, text_problem
from waypost.model.times import format_micros, taken_micros
from waypost.publisher.pending import Pending
from waypost.publisher.stamps import Clock, current_traceparent, new_id
from waypost.wire.encode import (
    CreateParts,
    check_raw,
    check_session_id,
    checkpoint_body,
    create_parts,
    expire_body,
    import_body,
    policy_body,
    rollback_body,
)
from waypost.wire.event_types import EventType

_CREATE: Final = EventType.CREATE.value
IMPORT_PART_BYTES: Final = 900_000
IMPORT_PART_COUNT: Final = 10_000
#: The same where data is encrypted: it takes a third more, and some hundred bytes for each checkpoint.
ENCRYPTED_PART_BYTES: Final = 600_000
ENCRYPTED_PART_COUNT: Final = 250


class CommandMethods(ABC):
    """The commands as plain calls, each of which returns the command's id.

    Each raises InvalidCommandError, which names the argument, BufferFullError or PublisherClosedError if the command
    was not accepted.
    """

    def __init__(self, default: Default | None = None, *, encrypts: bool = False) -> None:
        self._clock = Clock()
        self._default = default
        self._encrypts = encrypts

    def create(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        timestamp: datetime | None = None,
    ) -> str:
        """Append a checkpoint to a session.

        By default a session keeps at most 100 checkpoints, and above 50 only the latest of each name between the first
        and the last 20; :meth:`configure` changes that for a session, and :meth:`pin` exempts a checkpoint.

        Args:
            session_id: The session; its first checkpoint creates it.
            name: What happened, such as ``"task_done"``.
            data: What the agent knows, as a JSON object. Values that JSON can't represent need the option ``default``.
            metadata: A small JSON object to search by.
            timestamp: When it happened, with a time zone; now by default.

        Returns:
            The command's id. Kafka acknowledges the command later.

        Raises:
            InvalidCommandError: An argument breaks the contract; the message names it.
            BufferFullError: The buffer is full.
            PublisherClosedError: The publisher is closed or was not started.
        """
        pending = self._creating(session_id, name, data, metadata, timestamp)
        self._accept(pending)
        return pending.command_id

    def pin(self, session_id: str, checkpoint_id: str) -> str:
        """Pin a checkpoint, so that retention never removes it."""
        return self._send(EventType.PIN, session_id, checkpoint_body(checkpoint_id))

    def unpin(self, session_id: str, checkpoint_id: str) -> str:
        """Unpin a checkpoint, so that retention may remove it."""
        return self._send(EventType.UNPIN, session_id, checkpoint_body(checkpoint_id))

    def delete(self, session_id: str, checkpoint_id: str) -> str:
        """Delete a checkpoint."""
        return self._send(EventType.DELETE, session_id, checkpoint_body(checkpoint_id))

    def clear(self, session_id: str) -> str:
        """Delete all checkpoints of a session, including pinned ones."""
        return self._send(EventType.CLEAR, session_id, b"{}")

    def rollback(self, session_id: str, checkpoint_id: str, *, discard_later: bool = False) -> str:
        """Record a rollback to a checkpoint. With ``discard_later``, delete all checkpoints with a higher number."""
        return self._send(EventType.ROLLBACK, session_id, rollback_body(checkpoint_id, discard_later))

    def configure(self, session_id: str, **changes: int | float | None) -> str:
        """Change fields of a session's retention policy, and remove what it no longer allows.

        The fields are ``max_checkpoints`` (100 by default), ``compress_after`` (50), ``keep_recent`` (20), ``max_age``
        (None), which is in seconds, and ``encrypted`` (False). A session with ``encrypted=True`` accepts only encrypted
        data from then on, and can't be changed back.
        """
        return self._send(EventType.CONFIGURE, session_id, policy_body(changes))

    def expire(self, session_id: str, idle_since: datetime, *, pinned: bool = False) -> str:
        """Delete the checkpoints of a session if its last accepted command is older than ``idle_since``.

        The worker decides by the broker's clock. The result is ``waypost.session.expired``, or
        ``waypost.session.kept`` if there was a command since then, and nothing changes.

        Args:
            session_id: The session.
            idle_since: A time with a time zone, not in the future.
            pinned: Whether to delete pinned checkpoints, too.

        Returns:
            The command's id.
        """
        return self._send(EventType.EXPIRE, session_id, expire_body(idle_since, pinned))

    def erase(self, session_id: str) -> str:
        """Erase a session for good: its checkpoints, including pinned ones, its policy and its command ids.

        A tombstone stays. Every later command to the session is rejected as ``erased``, whenever it was published, and
        its content is not kept, so the id can never be used again. The result is ``waypost.session.erased``.

        This alone removes nothing from Kafka's topics. ``waypost erase`` also deletes the session's key, and reports
        what still holds its data and until when.
        """
        return self._send(EventType.ERASE, session_id, b"{}")

    def import_checkpoints(
        self, session_id: str, json_text: str | bytes, on_conflict: OnConflict = "skip"
    ) -> list[str]:
        """Import a list from :meth:`waypost.SessionReader.export`.

        A long list is split into several commands. Either all of them are accepted, or none and an error is raised.

        Args:
            session_id: The session that gets the checkpoints.
            json_text: The list, as JSON.
            on_conflict: The action for a number that is taken, ``"skip"``, ``"replace"`` or ``"reject"``.

        Returns:
            The ids of the commands.
        """
        # Imported here, because agents that import nothing should not have to load pydantic.
        from waypost.wire.decode import parse_body

        parts = []
        first = 0
        for part in split_import(json_text, encrypts=self._encrypts):
            body = import_body(part, on_conflict)
            try:
                parse_body(EventType.IMPORT, body)
            except InvalidCommandError as error:
                where = f"in the checkpoints from number {first} of the list on: " if first else ""
                raise InvalidCommandError(error.code, where + error.message) from None
            parts.append(self._pending(EventType.IMPORT, session_id, body))
            first += len(part)
        self._accept(*parts)
        return [part.command_id for part in parts]

    def publish_raw(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> str:
        """Publish a command whose body you encoded yourself.

        If ``command_id`` is that of an earlier attempt, the repetition has no effect.
        """
        check_raw(command_type, body)
        return self._send(command_type, session_id, body, timestamp, command_id)

    @deprecated("publish_raw()")
    def publish(
        self,
        session_id: str,
        command_type: str,
        body: bytes,
        *,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> str:
        """Call :meth:`publish_raw`, the new name."""
        return self.publish_raw(session_id, command_type, body, timestamp=timestamp, command_id=command_id)

    def _creating(
        self,
        session_id: str,
        name: str,
        data: dict[str, Any],
        metadata: dict[str, Any] | None,
        timestamp: datetime | None,
    ) -> Pending:
        return self._pending_create(session_id, create_parts(name, data, metadata, self._default), timestamp)

    def _pending_create(self, session_id: str, plain: CreateParts, timestamp: datetime | None) -> Pending:
        if not self._encrypts:
            return self._pending(_CREATE, session_id, plain.body(plain.data), timestamp)
        pending = self._pending(_CREATE, session_id, b"", timestamp)
        pending.plain = plain
        pending.size += len(plain.data)
        return pending

    def _send(
        self,
        command_type: str,
        session_id: str,
        body: bytes,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> str:
        pending = self._pending(command_type, session_id, body, timestamp, command_id)
        self._accept(pending)
        return pending.command_id

    def _pending(
        self,
        command_type: str,
        session_id: str,
        body: bytes,
        timestamp: datetime | None = None,
        command_id: str | None = None,
    ) -> Pending:
        check_session_id(session_id)
        if command_id is None:
            command_id = new_id()
        elif not isinstance(command_id, str):
            raise InvalidCommandError(
                "invalid-envelope", f"a command id must be a string, not {type(command_id).__name__}"
            )
        elif (problem := text_problem(command_id, MAX_COMMAND_ID)) is not None:
            raise InvalidCommandError("invalid-envelope", f"the command id {problem}")
        at = self._clock.now() if timestamp is None else format_micros(taken_micros(timestamp)).encode()
        return Pending(command_id, command_type, session_id, body, at, current_traceparent())

    @abstractmethod
    def _accept(self, *pending: Pending) -> None: ...


def split_import(json_text: str | bytes, *, encrypts: bool = False) -> Sequence[list[bytes]]:
    """Split an exported list into parts that each fit into one command, also once they are encrypted.

    Raises:
        InvalidCommandError: It is not a JSON list.
    """
    # Here and not above: most agents never import.
    from waypost.wire.raw_json import elements

    # A lone surrogate is refused as what it is, text that is not UTF-8, with all other broken JSON.
    raw = json_text.encode(errors="surrogatepass") if isinstance(json_text, str) else json_text
    if not isinstance(raw, bytes):
        raise InvalidCommandError("invalid-body", f"an import is JSON text, not a {type(raw).__name__}")
    if not isinstance(check_json(raw, around=2), list):
        raise InvalidCommandError("invalid-body", "an import is a JSON list of checkpoints")
    most = ENCRYPTED_PART_BYTES if encrypts else IMPORT_PART_BYTES
    most_count = ENCRYPTED_PART_COUNT if encrypts else IMPORT_PART_COUNT
    parts: list[list[bytes]] = [[]]
    size = 0
    for item in elements(raw):
        if parts[-1] and (size + len(item) > most or len(parts[-1]) >= most_count):
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += len(item) + 1
    return parts
