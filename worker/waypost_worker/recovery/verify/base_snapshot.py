"""A fold that begins with what a snapshot holds, in place of the log before it."""

from typing import Protocol

from waypost.model.index import Entry, SeenCommand, Session
from waypost_worker.partition.ports import RefusedError
from waypost_worker.recovery.memory_fold import (
    ENTRY_BYTES,
    REJECTED_BYTES,
    REMEMBERED_BYTES,
    SESSION_BYTES,
    MemoryFold,
    content_digest,
)
from waypost_worker.recovery.shares import Share
from waypost_worker.recovery.verify.rows import StoredPartition, VerifiedRows


class Base(VerifiedRows, Protocol):
    """A snapshot of one partition that is kept, and knows how many rows of each table it has."""

    name: str

    def count(self, table: str) -> int:
        """Rows of ``sessions``, ``checkpoints``, ``recent_commands`` or ``rejected_commands``."""
        ...


def fitting(base: Base, share: Share, room: int) -> Share:
    """The first part of ``share`` that is likely to take no more than ``room`` bytes."""
    size = (
        base.count("sessions") * SESSION_BYTES
        + base.count("checkpoints") * ENTRY_BYTES
        + base.count("recent_commands") * REMEMBERED_BYTES
        + base.count("rejected_commands") * REJECTED_BYTES
    )
    part = (share.high - share.low) / Share().high
    while size * part > room and base.count("sessions") * part > 1:
        share, part = share.first_half(), part / 2
    return share


async def position(base: Base, partition: int) -> StoredPartition:
    """Return where the snapshot ends. Raise RefusedError if it does not contain the partition."""
    row = await base.partition()
    if row is None:
        raise RefusedError(
            f"the snapshot {base.name!r} does not contain partition {partition}, which no worker had "
            "acquired yet, so it proves nothing about it. Nothing was compared; use a newer snapshot"
        )
    return row


async def begin(fold: MemoryFold, base: Base) -> None:
    """Make an empty fold what ``base`` holds of its share."""
    row = await position(base, fold.partition)
    fold.base = base.name
    fold.begin = fold.next_offset = row.next_offset
    fold.anchor = row.anchor
    fold.state = row.state()
    if fold.window is not None:
        fold.window = row.rejected_window
    entries: dict[str, list[Entry]] = {}
    async for checkpoint in base.checkpoints(fold.share):
        entries.setdefault(checkpoint.session_id, []).append(
            Entry(
                checkpoint.number,
                checkpoint.name,
                checkpoint.taken_at,
                checkpoint.recorded_at,
                checkpoint.position,
                checkpoint.command_id,
                checkpoint.imported_id,
                checkpoint.pinned,
            )
        )
        key = (checkpoint.session_id, checkpoint.number)
        fold.contents[key] = content_digest(checkpoint.data, checkpoint.metadata)
    remembered: dict[str, list[SeenCommand]] = {}
    async for command in base.commands(fold.share):
        one = SeenCommand(command.position, command.command_id, command.number)
        remembered.setdefault(command.session_id, []).append(one)
    async for stored in base.sessions(fold.share):
        name = stored.session_id
        held = entries.pop(name, []), remembered.pop(name, [])
        session = Session.restore(
            name, stored.counter, stored.policy, *held, stored.last_recorded_at, stored.erased_at
        )
        fold.keep(session)
        fold.times[name] = (stored.first_recorded_at, stored.last_recorded_at)
    if entries or remembered:
        raise RefusedError(
            f"the snapshot {base.name!r} holds checkpoints of a session that it does not hold: it was changed. Nothing "
            "was compared; use another snapshot"
        )
    async for rejected in base.rejected(fold.share):
        fold.keep_rejected(rejected)
