"""The meaning of commands: ``decide`` may reject, ``evolve`` never fails. Pure; the heart of Waypost.

``decide(session, command)`` looks at a session's index and answers with a decision; ``evolve(session, command,
decision)`` makes the index what the decision says. Nothing here reads a clock, makes an id, or iterates over an
unordered set, so the same commands always give the same decisions.

The in-memory manager, the worker and replay all run this code; there is no second implementation.
"""

from dataclasses import replace
from typing import Final, NamedTuple, assert_never

from waypost.errors import InvalidCommandError
from waypost.model.checkpoint import own_number
from waypost.model.commands import (
    Action,
    Clear,
    Command,
    Configure,
    ConfigureAuthority,
    ConfigureDefaults,
    Create,
    Delete,
    Erase,
    Expire,
    Import,
    PartitionAction,
    Pin,
    Rollback,
    Skip,
    Unpin,
)
from waypost.model.decisions import (
    Accepted,
    Cleared,
    Configured,
    Created,
    Deleted,
    Duplicate,
    Erased,
    Expired,
    Imported,
    Pinned,
    Placed,
    Rejected,
    RolledBack,
    SessionKept,
    Unchanged,
    Unpinned,
)
from waypost.model.encrypted_data import is_encrypted
from waypost.model.index import MANY, Entry, SeenCommand, Session
from waypost.model.limits import MAX_CLAIMED_NUMBER
from waypost.model.retention import RetentionPolicy, removed_by_age, retention
from waypost.model.retention_index import NOTHING, Change
from waypost.model.times import format_micros

#: The code of a rejection because of data that is not encrypted.
ENCRYPTION_REQUIRED: Final = "encryption-required"
_Other = (
    Pin | Unpin | Delete | Clear | Rollback | Import | Configure | Expire | Erase | PartitionAction
)  # than a create
ERASED: Final = "erased"  # the code of what comes to an erased session


def decide(session: Session, command: Command, default: RetentionPolicy) -> Accepted | Unchanged:
    """Return what ``command`` would do to ``session``, which does not change.

    ``default`` is the policy that applies if the session has none.
    """
    if session.erased_at is not None:
        return _after_erasure(session, command, session.erased_at)
    if command.id is not None and session.knows(command.id):
        return Duplicate(session.number_of(command.id))
    action, policy = command.action, session.policy or default
    if policy.encrypted or default.encrypted:
        try:
            _require_encryption(session, action)
        except InvalidCommandError as refusal:
            return Rejected(refusal.code, refusal.message)
    if isinstance(action, Create):  # by far the most frequent, and refused for nothing else
        return _create(session, command, action, policy)
    try:
        return _decide(session, command, action, policy)
    except InvalidCommandError as refusal:
        return Rejected(refusal.code, refusal.message)


def _require_encryption(session: Session, action: Action) -> None:
    """Raise InvalidCommandError for what a session that accepts only encrypted data does not accept."""
    match action:
        case Create():
            if not (action.encrypted or is_encrypted(action.data)):
                raise _unencrypted(session, "the data is")
        case Import():
            for item in action.checkpoints:
                if not is_encrypted(item.data):
                    raise _unencrypted(session, f"nothing was imported, as the data of {item.id!r} is")
        case Configure():
            if ("encrypted", False) in action.changes:
                raise InvalidCommandError(
                    ENCRYPTION_REQUIRED,
                    f"{session.session_id!r} accepts only encrypted data, and stays so: use another session id for "
                    "data that is not encrypted",
                )


def _unencrypted(session: Session, found: str) -> InvalidCommandError:
    return InvalidCommandError(
        ENCRYPTION_REQUIRED,
        f"{session.session_id!r} accepts only encrypted data, and {found} not encrypted: publish it with a codec",
    )


def _after_erasure(session: Session, command: Command, erased_at: int) -> Erased | Unchanged:
    if not isinstance(command.action, Erase):
        return rejected_as_erased(session.session_id, erased_at)
    if command.id is not None and session.knows(command.id):
        return Duplicate(None)
    return Erased(erased_at)


def rejected_as_erased(session_id: str, erased_at: int) -> Rejected:
    """Return the rejection of any command to an erased session. It does not quote the command."""
    return Rejected(
        ERASED,
        f"session {session_id!r} was erased at {format_micros(erased_at)} and takes no more commands; the content of "
        "this one was not kept: use another session id",
    )


def _decide(
    session: Session, command: Command, action: _Other, policy: RetentionPolicy
) -> Accepted | SessionKept:
    now = command.recorded_at
    match action:
        case Pin():
            entry = _existing(session, action.checkpoint_id)
            if not entry.pinned and (pins := session.pins()) >= policy.max_pins:
                raise InvalidCommandError(
                    "pin-limit",
                    f"{pins} checkpoints of {session.session_id!r} are pinned and its policy allows "
                    f"{policy.max_pins}: unpin one, or raise max_checkpoints",
                )
            return Pinned(entry.number, _settle(session, policy, now, flip=entry))
        case Unpin():
            entry = _existing(session, action.checkpoint_id)
            return Unpinned(entry.number, _settle(session, policy, now, flip=entry, pinned=False))
        case Delete():
            number = _existing(session, action.checkpoint_id).number
            return Deleted(number, _settle(session, policy, now, gone=(number,)))
        case Clear():
            return Cleared(tuple(session.live_in_order()))
        case Rollback():
            number = _existing(session, action.checkpoint_id).number
            later = tuple(session.later_than(number)) if action.discard_later else ()
            return RolledBack(number, tuple(sorted(later + _settle(session, policy, now, gone=later))))
        case Import():
            return _import(session, command, action, policy)
        case Configure():
            changed = policy.changed(action.changes)
            if (pins := session.pins()) > changed.max_pins:
                raise InvalidCommandError(
                    "pin-limit",
                    f"{pins} checkpoints of {session.session_id!r} are pinned, so max_checkpoints must be at "
                    f"least {pins + 2}: unpin some first, or choose a larger one",
                )
            return Configured(changed, tuple(_kept_within(session, changed, now)))
        case Expire():
            return _expire(session, action, now)
        case Erase():
            return Erased(now, tuple(session.live_in_order()))
        case ConfigureDefaults() | ConfigureAuthority() | Skip():
            raise AssertionError("it concerns the partition, see waypost.model.partition_state")
        case _:
            assert_never(action)


def _expire(session: Session, action: Expire, now: int) -> Expired | SessionKept:
    if action.idle_since > now:
        raise InvalidCommandError(
            "invalid-body",
            f"idle_since: {format_micros(action.idle_since)} is later than {format_micros(now)}, when Kafka recorded "
            "the command: a session can't be idle since then",
        )
    last = session.last_recorded_at
    if last is None or last >= action.idle_since:
        return SessionKept(action.idle_since, last)
    removed = session.removable(action.pinned)
    # A publisher that was offline may repeat commands when it returns. So their ids outlive the checkpoints by
    # another idle period.
    return Expired(action.idle_since, last, removed, forgets=not removed)


def _existing(session: Session, identifier: str) -> Entry:
    entry = session.find(identifier)
    if entry is None:
        raise InvalidCommandError(
            "unknown-checkpoint",
            f"{session.session_id!r} holds no checkpoint {identifier!r}: it was never made, belongs to "
            "another session, or was removed",
        )
    return entry


def _create(session: Session, command: Command, action: Create, policy: RetentionPolicy) -> Created:
    command_id, position, taken_at, recorded_at, _ = command
    entry = Entry(session.counter + 1, action.name, taken_at, recorded_at, position, command_id)
    size = len(session) + 1
    # The usual cases, below the cap and at it, need no look at all entries.
    if policy.max_age is None and size <= policy.compress_after:
        if size <= policy.max_checkpoints:
            return Created(entry)
        if size == policy.max_checkpoints + 1 and (lowest := session.lowest_to_drop()) is not None:
            return Created(entry, (lowest,))
    return Created(entry, tuple(_kept_within(session, policy, recorded_at, entry)))


def _kept_within(
    session: Session, policy: RetentionPolicy, now: int, coming: Entry | None = None
) -> list[int]:
    """Return what retention removes, including the effect of the checkpoint that is about to be added."""
    index = session.retention_index()
    if index is not None:
        change = NOTHING if coming is None else Change(added=(coming.number,))
        return index.removed(policy, now, compress=True, change=change)
    entries = session.live()
    if coming is not None:
        entries.append(coming)
    return retention(entries, policy, now, compress=True)


def _settle(
    session: Session,
    policy: RetentionPolicy,
    now: int,
    *,
    gone: tuple[int, ...] = (),
    flip: Entry | None = None,
    pinned: bool = True,
) -> tuple[int, ...]:
    """Return what is too old once the command has taken effect: without ``gone``, with ``flip`` pinned or not."""
    if policy.max_age is None:
        return ()
    index = session.retention_index()
    if index is not None:
        number = None if flip is None else flip.number
        change = Change(
            gone=frozenset(gone), pinned=number if pinned else None, unpinned=None if pinned else number
        )
        return tuple(index.too_old(policy, now, change))
    dropped = set(gone)
    entries = [entry for entry in session.live() if entry.number not in dropped]
    if flip is not None:
        entries = [replace(entry, pinned=pinned) if entry is flip else entry for entry in entries]
    return tuple(removed_by_age(entries, policy, now))


def _import(session: Session, command: Command, action: Import, policy: RetentionPolicy) -> Imported:
    taken: dict[int, Entry] = {}  # what the import made or replaced
    counter = session.counter
    placed = []
    for item in action.checkpoints:
        number = own_number(session.session_id, item.id)
        imported_id = None
        # A claim far above the counter would use up the numbers: that item is placed like a foreign one.
        if number is None or number > max(MAX_CLAIMED_NUMBER, counter):
            number, imported_id = counter + 1, item.id
        there = taken.get(number) or session.entries.get(number)
        if there is not None and action.on_conflict == "reject":
            raise InvalidCommandError(
                "conflict",
                f"checkpoint {item.id!r} exists already and on_conflict is 'reject': nothing was imported; "
                "use 'skip' or 'replace', or import into an empty session",
            )
        if there is not None and action.on_conflict == "skip":
            placed.append(Placed(number, "skipped", None, item))
            continue
        # A replaced checkpoint keeps its number, its pin and the memory of the command that made it.
        entry = Entry(
            number=number,
            name=item.name,
            taken_at=item.timestamp,
            recorded_at=command.recorded_at,
            position=there.position if there else command.position,
            command_id=there.command_id if there else None,
            imported_id=there.imported_id if there else imported_id,
            pinned=there.pinned if there else False,
        )
        taken[number] = entry
        counter = max(counter, number)
        placed.append(Placed(number, "replaced" if there else "imported", entry, item))
    return Imported(tuple(placed), tuple(_kept_after_import(session, policy, command.recorded_at, taken)))


def _kept_after_import(
    session: Session, policy: RetentionPolicy, now: int, taken: dict[int, Entry]
) -> list[int]:
    """Return what retention removes once these entries are in their places."""
    index = session.retention_index() if len(taken) < len(session) // 8 else None
    if index is not None:
        renewed = frozenset(number for number in taken if number in session.entries)
        change = Change(added=sorted(taken.keys() - renewed), renewed=renewed)
        return index.removed(policy, now, compress=False, change=change)
    merged = session.entries | taken
    entries = [merged[number] for number in sorted(merged)]
    return retention(entries, policy, now, compress=False)


class DedupChanges(NamedTuple):
    """Return the command's changes to the memory of command ids: additions, and the lowest position still kept."""

    added: tuple[SeenCommand, ...]
    forgotten_below: int | None


_UNCHANGED: Final = DedupChanges((), None)


def evolve(session: Session, command: Command, decision: Accepted) -> DedupChanges:
    """Make ``session`` what ``decision`` says. Never fails for a decision that ``decide`` just made."""
    session.last_recorded_at = command.recorded_at
    if type(decision) is Created and not decision.removed:
        session.add(decision.entry)
        return _UNCHANGED
    about: int | None = None
    added: list[SeenCommand] = []
    if isinstance(decision, Erased):
        session.erase(decision.erased_at)
        if command.id is not None:
            added.append(session.remember(SeenCommand(command.position, command.id, about)))
        return DedupChanges(tuple(added), command.position)
    match decision:
        case Created():
            session.add(decision.entry)
        case Pinned() | Unpinned():
            about = decision.number
            session.pin(about, isinstance(decision, Pinned))
        case Deleted():
            about = decision.number
            if (remembered := session.drop(about)) is not None:
                added.append(remembered)
        case RolledBack():
            about = decision.number
        case Imported():
            _take_imported(session, decision)
        case Configured():
            session.policy = decision.policy
        case Cleared() | Expired():
            pass
        case _:
            assert_never(decision)
    if len(decision.removed) > MANY:
        added += session.drop_all(decision.removed)
    else:
        for number in decision.removed:
            if (remembered := session.drop(number)) is not None:
                added.append(remembered)
    forgets = isinstance(decision, Expired) and decision.forgets
    if forgets:
        session.forget_all()
    if command.id is not None and not isinstance(decision, Created):
        added.append(session.remember(SeenCommand(command.position, command.id, about)))
    if not added and not forgets:
        return _UNCHANGED
    return DedupChanges(tuple(added), command.position if forgets else session.forget())


def _take_imported(session: Session, decision: Imported) -> None:
    # An import may replace what it has just made: the last entry of a number counts, and is in its place alone.
    last = {placed.number: placed.entry for placed in decision.placed if placed.entry is not None}
    for number, entry in last.items():
        if number in session.entries:
            session.replace(entry)
    session.add_all([entry for number, entry in last.items() if number not in session.entries])
