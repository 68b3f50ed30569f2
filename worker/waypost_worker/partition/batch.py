"""One batch of command records, folded over sessions: decisions, results, and what the store must change.

No I/O: the sessions that a batch touches are loaded before, the data that rollbacks return after. The worker
and replay both fold the log with this code.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Final, NamedTuple

from waypost.errors import InvalidCommandError
from waypost.model.commands import Action, Command, Create, PartitionAction
from waypost.model.decisions import (
    Accepted,
    Created,
    DefaultsConfigured,
    Deleted,
    Duplicate,
    Erased,
    Imported,
    NotSkipped,
    PartitionDecision,
    Pinned,
    Rejected,
    RolledBack,
    SessionKept,
    Unpinned,
)
from waypost.model.index import Entry, Session
from waypost.model.limits import MAX_DATA_BYTES, MAX_METADATA_BYTES
from waypost.model.partition_state import PartitionState
from waypost.model.session import decide, evolve, rejected_as_erased
from waypost.wire.decode import parse_body
from waypost.wire.envelope import Envelope, KafkaRecord, glimpse, open_envelope, recorded_at, session_of
from waypost.wire.topics import partition_of
from waypost_worker.partition import outbox
from waypost_worker.partition.encode import Content, ResultEncoder
from waypost_worker.partition.kept import kept, without_content
from waypost_worker.partition.ports import Changes, RejectedRow, ResultRecord, Row, UnreadableRecord
from waypost_worker.partition.signatures import is_signed

# Creates named tuples (see waypost.wire.envelope): a create consists of several.
_new: Final = tuple.__new__


class Decoded(NamedTuple):
    """A record as far as it can be understood without state: a command, or the reason why it is not one. ``session_id``
    is the session whose state is needed to decide, or None. A rejected command needs its session too, because an erased
    session keeps no content of later commands.
    """

    record: KafkaRecord
    envelope: Envelope | None
    action: Action | None
    rejection: Rejected | None
    session_id: str | None


_SESSION_ID: Final = attrgetter("session_id")
# The largest data and metadata that a rollback can return. Stored metadata of 16 KiB is read as up to 850 KB of text,
# for Postgres writes 1e308 with all its digits.
ROLLBACK_BYTES: Final = MAX_DATA_BYTES + 53 * MAX_METADATA_BYTES
# Results of more bytes are made in another batch. Creates, which bring their own bytes along, hardly count.
RESULT_BYTES: Final = 8 * 1024 * 1024
_FEW: Final = 8  # checkpoints that a create usually removes at most
# What may be done before the event loop gets a turn, in commands of the usual size: about 10 ms.
_TURN: Final = 500
_LISTED: Final = 4  # checkpoints that cost as much as a command
SKIPPED: Final = "skipped"  # the code of what an authority had skipped
_SIGNATURE: Final = 20  # looking at one takes about 0.1 ms, in checkpoints


def decode(record: KafkaRecord, partition: int, partitions: int) -> Decoded:
    """Understand a record. Never raises for bad input: an invalid command becomes a rejection."""
    envelope: Envelope | None = None
    try:
        envelope = open_envelope(record)
        action = parse_body(envelope.type, envelope.body)
        session_id = envelope.session_id
        if type(action) is not Create and isinstance(action, PartitionAction):
            if session_id is not None:
                raise InvalidCommandError(
                    "invalid-envelope", f"{envelope.type} concerns a whole partition: send it without a key"
                )
        elif session_id is None:
            raise InvalidCommandError(
                "invalid-envelope", "the record has no key: send the session id as UTF-8 key"
            )
        elif (home := partition_of(session_id, partitions)) != partition:
            raise InvalidCommandError(
                "misrouted",
                f"session {session_id!r} belongs to partition {home}, this is {partition}: publish with "
                "Kafka's murmur2 partitioner; librdkafka clients set partitioner=murmur2_random",
            )
    except InvalidCommandError as error:
        # Records that could not be read at all fail here as well: they have no headers.
        known = record.rejection if isinstance(record, UnreadableRecord) else None
        rejection = known or Rejected(error.code, error.message)
        return Decoded(record, envelope, None, rejection, _session_here(record, partition, partitions))
    return _new(Decoded, (record, envelope, action, None, session_id))


def _session_here(record: KafkaRecord, partition: int, partitions: int) -> str | None:
    """Return the session that a record's key names, if this partition has it."""
    try:
        session_id = session_of(record)
    except InvalidCommandError:
        return None
    return (
        session_id if session_id is not None and partition_of(session_id, partitions) == partition else None
    )


@dataclass(slots=True)
class _Rollback:
    """A rollback's result that waits for its checkpoint's data; ``place`` among the results of the batch."""

    place: int
    envelope: Envelope
    offset: int
    decision: RolledBack
    entry: Entry
    content: Content | None


class ChangeCollector:
    """The changes of accepted decisions to sessions and to the store, regardless of where the decisions come from."""

    def __init__(self) -> None:
        self.changes = Changes()

    def take_created(self, session: Session, command: Command, decision: Created, content: Content) -> None:
        """A checkpoint was made. By far the most frequent case."""
        entry, removed = decision
        session_id, changes = session.session_id, self.changes
        changes.puts[session_id, entry.number] = _new(Row, (session_id, entry, *content))
        if removed:
            self._evolve(session, command, decision)
            return
        evolve(session, command, decision)
        if session_id not in changes.sessions:
            changes.begun[session_id] = command.recorded_at
        changes.sessions[session_id] = (session, command.recorded_at)

    def take(self, session: Session, command: Command, decision: Accepted) -> None:
        """Any other decision but a create."""
        self._store(session.session_id, decision)
        self._evolve(session, command, decision)

    def take_for_partition(
        self, state: PartitionState, command: Command, decision: PartitionDecision
    ) -> None:
        """A decision about the whole partition."""
        state.evolve(command, decision)
        self.note_partition(state, decision)

    def note_partition(self, state: PartitionState, decision: PartitionDecision) -> None:
        """Add the change of an accepted decision about the whole partition."""
        self.changes.partition_commands = list(state.recent)
        self.changes.authority = state.authority
        if isinstance(decision, DefaultsConfigured):
            self.changes.default_policy = state.policy

    def note_skipped(self, state: PartitionState, offset: int) -> None:
        """A command was skipped."""
        state.skip(offset)
        self.changes.authority = state.authority

    def _evolve(self, session: Session, command: Command, decision: Accepted) -> None:
        changes = self.changes
        session_id = session.session_id
        memory = evolve(session, command, decision)
        if isinstance(decision, Erased):
            changes.erased[session_id] = command.position
        for number in decision.removed:
            self._drop(session_id, number)
        for remembered in memory.added:
            changes.remembered.append((session_id, remembered))
        if memory.forgotten_below is not None:
            # An expiry may have forgotten more in this batch than what is forgotten now.
            before = changes.forgotten.get(session_id, memory.forgotten_below)
            changes.forgotten[session_id] = max(before, memory.forgotten_below)
        changes.begun.setdefault(session_id, command.recorded_at)
        changes.sessions[session_id] = (session, command.recorded_at)

    def _store(self, session_id: str, decision: Accepted) -> None:
        match decision:
            case Pinned() | Unpinned():
                # A checkpoint of this very batch carries its pin itself: its row is written at the end.
                if (session_id, decision.number) not in self.changes.puts:
                    pinned = isinstance(decision, Pinned)
                    self.changes.pins[session_id, decision.number] = pinned
            case Deleted():
                self._drop(session_id, decision.number)
            case Imported():
                for placed in decision.placed:
                    if placed.entry is not None:
                        if placed.outcome == "replaced":
                            self._drop(session_id, placed.number)
                        self._put(session_id, placed.entry, (placed.item.data, placed.item.metadata))
            case _:
                pass

    def _put(self, session_id: str, entry: Entry, content: Content) -> None:
        self.changes.puts[session_id, entry.number] = Row(session_id, entry, *content)

    def _drop(self, session_id: str, number: int) -> None:
        # A checkpoint that this batch put was never stored; if it replaced a stored row, that one is already in drops.
        key = (session_id, number)
        if self.changes.puts.pop(key, None) is None:
            self.changes.drops[key] = None
            self.changes.pins.pop(key, None)


class Batch(ChangeCollector):
    """Folds decoded records over loaded sessions, in log order, and collects the consequences."""

    def __init__(self, encoder: ResultEncoder, sessions: dict[str, Session], state: PartitionState) -> None:
        super().__init__()
        self._encoder = encoder
        self._sessions = sessions
        self._state = state
        self._made: list[tuple[int, ResultRecord]] = []
        self._items: list[outbox.Item] = []
        self._rollbacks: list[_Rollback] = []
        # The places in the batch of all commands except accepted creates: usually few.
        self.others: list[int] = []
        # Valid orders to skip a command that was not skipped, with their offsets.
        self.unmet: list[tuple[NotSkipped, int]] = []
        # Set when the event loop should get a turn, or the batch is full.
        self.pauses = False
        self._result_bytes = 0
        self._work = 0

    @property
    def is_full(self) -> bool:
        """Return whether its results take so much memory that it should end here."""
        return self._result_bytes >= RESULT_BYTES

    def resume(self) -> None:
        """Continue, after the event loop had its turn."""
        self._work, self.pauses = 0, self.is_full

    def add(self, decoded: Decoded) -> None:
        """Decide on one record and take its consequences over."""
        record, envelope, action, rejection, _ = decoded
        if envelope is None or action is None:
            if rejection is not None and rejection.code == SKIPPED:
                self.note_skipped(self._state, record.offset)
            self._reject(decoded, rejection or Rejected("invalid-envelope", "unreadable"))
            return
        offset = record.offset
        made = (envelope.id, offset, envelope.taken_at, envelope.recorded_at, action)
        command = _new(Command, made)
        if type(action) is not Create and isinstance(action, PartitionAction):
            self._decide_for_partition(decoded, envelope, command, action)
            return
        session_id = envelope.session_id or ""
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = Session(session_id)
        decision = decide(session, command, self._state.policy)
        if type(decision) is Created and type(action) is Create:
            self._created(session, envelope, command, decision, action)
            return
        match decision:
            case Rejected():
                self._reject(decoded, decision)
            case Duplicate():
                self._keep(offset, self._encoder.duplicate(envelope, offset, decision))
            case SessionKept():
                self._keep(offset, self._encoder.kept(envelope, offset, decision))
            case RolledBack():
                entry = session.entries[decision.number]
                put = self.changes.puts.get((session_id, entry.number))
                # The result shows the checkpoint as it is now; a later command of this batch may change it.
                content_now = None if put is None else (put.data, put.metadata)
                place = self._next_place()
                waiting = _Rollback(place, envelope, offset, decision, replace(entry), content_now)
                self._rollbacks.append(waiting)
                self._weigh(ROLLBACK_BYTES, len(decision.removed))
                self._evolve(session, command, decision)
            case _:
                self._keep(offset, self._encoder.accepted(envelope, offset, decision))
                placed = len(decision.placed) if isinstance(decision, Imported) else 0
                self._weigh(0, placed + len(decision.removed))
                self.take(session, command, decision)

    def _created(
        self, session: Session, envelope: Envelope, command: Command, decision: Created, action: Create
    ) -> None:
        """By far the most frequent case."""
        entry, removed = decision
        offset, content = command.position, (action.data, action.metadata)
        result = self._encoder.created(envelope, offset, entry, content, removed)
        self._made.append((offset, result))
        self._items.append(outbox.created_item(offset, entry.number, removed))
        if len(removed) > _FEW:
            self._weigh(len(result.value), len(removed))
        self.take_created(session, command, decision, content)

    def wanted(self) -> list[tuple[str, int]]:
        """Checkpoints whose stored data is needed for results, as they are before this batch is stored."""
        return [
            (one.envelope.session_id or "", one.entry.number)
            for one in self._rollbacks
            if one.content is None
        ]

    def finish(
        self, contents: Mapping[tuple[str, int], Content]
    ) -> tuple[list[tuple[int, ResultRecord]], list[outbox.Item]]:
        """The results with their command offsets, and the outbox items, both in log order."""
        for one in self._rollbacks:
            content = one.content or contents[one.envelope.session_id or "", one.entry.number]
            record = self._encoder.accepted(one.envelope, one.offset, one.decision, (one.entry, content))
            self._made.insert(one.place, (one.offset, record))
            self._items.insert(one.place, outbox.whole_item(one.offset, record))
        self._rollbacks.clear()
        return self._made, self._items

    def _decide_for_partition(
        self, decoded: Decoded, envelope: Envelope, command: Command, action: PartitionAction
    ) -> None:
        if envelope.signature is not None:
            self._weigh(0, _SIGNATURE)
        before = self._state.authority
        decision = self._state.take(command, action, partial(is_signed, envelope, self._encoder.partition))
        if self._state.authority is not before:
            self.changes.authority = self._state.authority
        match decision:
            case Rejected():
                self._reject(decoded, decision)
            case NotSkipped():
                self.unmet.append((decision, command.position))
                message = f"the command at offset {decision.offset} can't be skipped, or has a different hash"
                self._reject(decoded, Rejected("conflict", message))
            case Duplicate():
                self._keep(command.position, self._encoder.duplicate(envelope, command.position, decision))
            case _:
                self.note_partition(self._state, decision)
                result = self._encoder.for_partition(envelope, command.position, decision)
                self._keep(command.position, result)

    def _reject(self, decoded: Decoded, rejection: Rejected) -> None:
        record = decoded.record
        erased_at = self._erased_at(decoded)
        if erased_at is not None:
            rejection = rejected_as_erased(decoded.session_id or "", erased_at)
        command_id, session_id = glimpse(record, decoded.envelope)
        at = recorded_at(record)
        traceparent = decoded.envelope.traceparent if decoded.envelope else None
        result = self._encoder.rejected(
            rejection,
            record.offset,
            at,
            key=record.key,
            session_id=session_id,
            command_id=command_id,
            traceparent=traceparent,
        )
        self._keep(record.offset, result)
        row = RejectedRow(
            record.offset,
            session_id,
            command_id,
            rejection.code,
            rejection.message,
            record.key,
            record.value,
            list(record.headers),
            at,
        )
        self.changes.rejected.append(kept(row if erased_at is None else without_content(row)))

    def _erased_at(self, decoded: Decoded) -> int | None:
        session = None if decoded.session_id is None else self._sessions.get(decoded.session_id)
        return None if session is None else session.erased_at

    def _next_place(self) -> int:
        place = len(self._made) + len(self._rollbacks)
        self.others.append(place)
        return place

    def _keep(self, offset: int, record: ResultRecord) -> None:
        self._next_place()
        self._made.append((offset, record))
        self._items.append(outbox.whole_item(offset, record))
        self._weigh(len(record.value), 0)

    def _weigh(self, result_bytes: int, listed: int) -> None:
        """Count what a result takes, and what was done for it."""
        self._result_bytes += result_bytes
        self._work += 1 + listed // _LISTED
        self.pauses = self._work > _TURN or self.is_full


def touched_sessions(decoded: Iterable[Decoded]) -> dict[str, None]:
    """The sessions that these commands touch, in order of first appearance."""
    touched = dict.fromkeys(map(_SESSION_ID, decoded))
    touched.pop(None, None)
    return touched
