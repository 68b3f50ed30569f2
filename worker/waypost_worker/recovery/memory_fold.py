"""One partition's log folded in memory: the state that Postgres must hold, with digests instead of data.

The fold is the worker's own (``partition.apply``); this only keeps what it amounts to.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from waypost.model.decisions import NotSkipped
from waypost.model.index import Session
from waypost.model.partition_state import PartitionState
from waypost.wire.envelope import MAX_KEY_BYTES, KafkaRecord
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.batch import Batch
from waypost_worker.partition.encode import Content, NullEncoder, ResultEncoder
from waypost_worker.partition.kept import make_room
from waypost_worker.partition.ports import Changes, RejectedRow, RejectedWindow
from waypost_worker.partition.skips import NO_ORDERS
from waypost_worker.recovery.shares import WHOLE, Share, spread_of

Key = tuple[str, int]
_DIGEST_BYTES: Final = 16
# The memory that each takes, including what a comparison adds; measured, and rounded up.
SESSION_BYTES: Final = 1200
ENTRY_BYTES: Final = 800
REMEMBERED_BYTES: Final = 400
REJECTED_BYTES: Final = 400


def content_digest(data: bytes, metadata: bytes) -> bytes:
    """16 bytes over a checkpoint's data and canonical metadata."""
    hashed = hashlib.blake2b(b"%d:" % len(data), digest_size=_DIGEST_BYTES)
    hashed.update(data)
    hashed.update(metadata)
    return hashed.digest()


def rejected_digest(row: RejectedRow) -> bytes:
    """Return 16 bytes over a rejected command. The wording of the message is left out, because it may improve."""
    parts = (
        *(row.session_id, row.command_id, row.code, row.key, row.value, list(row.headers), row.recorded_at),
        *(row.value_bytes, row.headers_bytes),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()


class MemoryFold:
    """State of one partition at ``next_offset``, or of those of its sessions that are in ``share``.

    It began at the log's beginning or, at ``begin``, with what the snapshot ``base`` held (see ``beginning``).
    """

    def __init__(self, partition: int, partitions: int, share: Share = WHOLE) -> None:
        self.partition = partition
        self.partitions = partitions
        self.share = share
        self.base: str | None = None
        self.begin = 0
        self.next_offset = 0
        self.anchor: bytes | None = None
        self.sessions: dict[str, Session] = {}
        self.state = PartitionState()
        self.contents: dict[Key, bytes] = {}
        self.times: dict[str, tuple[int, int]] = {}
        # By offset: code, digest, where it is spread, and the session.
        self.rejected: dict[int, tuple[str, bytes, int, str | None]] = {}
        self.erased: dict[str, int] = {}  # sessions, with the offsets of their last erase commands
        # Which of them are kept; None if others, which are not folded, count as well.
        self.window: RejectedWindow | None = RejectedWindow() if share.whole else None
        self._weights: dict[str, int] = {}
        self._weight = 0  # entries and remembered ids of all sessions
        self._silent = NullEncoder(partition)
        self.orders = NO_ORDERS
        self._unmet: list[tuple[NotSkipped, int]] = []

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return (
            len(self.sessions) * SESSION_BYTES
            + len(self.contents) * ENTRY_BYTES
            + (self._weight - len(self.contents)) * REMEMBERED_BYTES
            + len(self.rejected) * REJECTED_BYTES
        )

    def take(self, records: Sequence[KafkaRecord]) -> None:
        """Fold the next records."""
        self._absorb(self._fold(records, self._silent).changes)

    def take_with_items(
        self, records: Sequence[KafkaRecord], encoder: ResultEncoder
    ) -> tuple[list[Key], Callable[[dict[Key, Content]], list[outbox.Item]]]:
        """Fold the next records, which must be few. Return what the outbox keeps of their results.

        Returns the checkpoints whose contents are needed for that, and a function that takes those.
        """
        batch = self._fold(records, encoder)
        self._absorb(batch.changes)
        return batch.wanted(), lambda contents: batch.finish(contents)[1]

    def keep(self, session: Session) -> None:
        """Take a session's current state, and weigh it again."""
        name = session.session_id
        self.sessions[name] = session
        weight = session.weight()
        self._weight += weight - self._weights.get(name, 0)
        self._weights[name] = weight

    def halve(self) -> bool:
        """Forget the upper half of what is held, by hash, and fold no more of it; whether there was more than one."""
        spreads = {spread_of(name.encode()) for name in self.sessions}
        held = sorted(spreads.union(spread for _, _, spread, _ in self.rejected.values()))
        if len(held) < 2:
            return False
        self.window = None
        self.share = share = Share(self.share.low, held[len(held) // 2])
        for name in [name for name in self.sessions if not share.holds(spread_of(name.encode()))]:
            for number in self.sessions.pop(name).entries:
                self.contents.pop((name, number), None)
            self.times.pop(name, None)
            self._weight -= self._weights.pop(name, 0)
        self.rejected = {offset: one for offset, one in self.rejected.items() if share.holds(one[2])}
        return True

    def take_unmet(self) -> list[tuple[NotSkipped, int]]:
        """Return the valid orders to skip commands that were not skipped, each once."""
        unmet, self._unmet = self._unmet, []
        return unmet

    def _fold(self, records: Sequence[KafkaRecord], encoder: ResultEncoder) -> Batch:
        batch = Batch(encoder, self.sessions, self.state)
        share = None if self.share.whole else self.share
        for record in records:
            # A command without a key may be about the whole partition, which all sessions follow.
            if (
                share is None
                or record.key is None
                or self.orders.of(record) is not None
                or share.holds(spread_of(record.key[:MAX_KEY_BYTES]))
            ):
                batch.add(self.orders.decode(record, self.partition, self.partitions))
        if records:
            self.next_offset = records[-1].offset + 1
            self.anchor = anchor_of(records[-1])
        self._unmet += batch.unmet
        return batch

    def _absorb(self, changes: Changes) -> None:
        for key in changes.drops:
            self.contents.pop(key, None)
        for key, row in changes.puts.items():
            self.contents[key] = content_digest(row.data, row.metadata)
        for session_id, (session, last) in changes.sessions.items():
            known = self.times.get(session_id)
            self.times[session_id] = (changes.begun[session_id] if known is None else known[0], last)
            self.keep(session)
        self.erased |= changes.erased
        for rejected in changes.rejected:
            self.keep_rejected(rejected)
        if self.window is not None and changes.rejected:
            self.window, _ = make_room(self.window, changes.rejected)

    def keep_rejected(self, row: RejectedRow) -> None:
        """Note a rejected command, if it is in the share."""
        spread = spread_of(row.key, row.offset)
        if self.share.holds(spread):
            self.rejected[row.offset] = (row.code, rejected_digest(row), spread, row.session_id)

    def was_erased(self, offset: int, session_id: str | None) -> bool:
        """Return whether the rejected command at this offset is gone because its session was erased later."""
        # Rows of former topics have negative offsets, so no number can stand for a session that was not erased.
        below = None if session_id is None else self.erased.get(session_id)
        return below is not None and offset < below
