"""One partition's log folded in memory: what Postgres must hold, with digests in place of data.

The fold is the worker's own (``partition.apply``); this only keeps what it amounts to.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from waypost.defaults import Defaults
from waypost.envelope import KafkaRecord
from waypost.session_index import Session
from waypost_worker.partition import outbox
from waypost_worker.partition.anchor import anchor_of
from waypost_worker.partition.apply import Batch, decode
from waypost_worker.partition.encode import Content, ResultEncoder
from waypost_worker.partition.ports import Changes, RejectedRow
from waypost_worker.recovery.silence import SilentEncoder

Wanted = Callable[[bytes | None], bool]
Key = tuple[str, int]
_DIGEST_BYTES: Final = 16


def content_digest(data: bytes, metadata: bytes) -> bytes:
    """16 bytes over a checkpoint's data and canonical metadata."""
    hashed = hashlib.blake2b(b"%d:" % len(data), digest_size=_DIGEST_BYTES)
    hashed.update(data)
    hashed.update(metadata)
    return hashed.digest()


def rejected_digest(row: RejectedRow) -> bytes:
    """16 bytes over a refused command; the wording of the message is left out, for it may improve."""
    parts = (row.session_id, row.command_id, row.code, row.key, row.value, list(row.headers), row.recorded_at)
    return hashlib.blake2b(repr(parts).encode(), digest_size=_DIGEST_BYTES).digest()


class MemoryFold:
    """State of one partition at ``next_offset``, or of those of its sessions whose record keys are ``wanted``."""

    def __init__(self, partition: int, partitions: int, wanted: Wanted | None = None) -> None:
        self.partition = partition
        self.partitions = partitions
        self.next_offset = 0
        self.anchor: bytes | None = None
        self.sessions: dict[str, Session] = {}
        self.defaults = Defaults()
        self.contents: dict[Key, bytes] = {}
        self.times: dict[str, tuple[int, int]] = {}
        self.rejected: dict[int, tuple[str, bytes]] = {}  # by offset: code, digest
        self._wanted = wanted
        self._silent = SilentEncoder(partition)

    def take(self, records: Sequence[KafkaRecord]) -> None:
        """Fold the next records."""
        self._absorb(self._fold(records, self._silent).changes)

    def take_with_items(
        self, records: Sequence[KafkaRecord], encoder: ResultEncoder
    ) -> tuple[list[Key], Callable[[dict[Key, Content]], list[outbox.Item]]]:
        """Fold the next records, which must be few; what the outbox keeps of their results.

        Returns the checkpoints whose contents are needed for that, and a function that takes those.
        """
        batch = self._fold(records, encoder)
        self._absorb(batch.changes)
        return batch.wanted(), lambda contents: batch.finish(contents)[1]

    def _fold(self, records: Sequence[KafkaRecord], encoder: ResultEncoder) -> Batch:
        batch = Batch(encoder, self.sessions, self.defaults)
        wanted = self._wanted
        for record in records:
            if wanted is None or wanted(record.key):
                batch.add(decode(record, self.partition, self.partitions))
        if records:
            self.next_offset = records[-1].offset + 1
            self.anchor = anchor_of(records[-1])
        return batch

    def _absorb(self, changes: Changes) -> None:
        for key in changes.drops:
            self.contents.pop(key, None)
        for key, row in changes.puts.items():
            self.contents[key] = content_digest(row.data, row.metadata)
        for session_id, (_, last) in changes.sessions.items():
            known = self.times.get(session_id)
            self.times[session_id] = (changes.begun[session_id] if known is None else known[0], last)
        for rejected in changes.rejected:
            self.rejected[rejected.offset] = (rejected.code, rejected_digest(rejected))
