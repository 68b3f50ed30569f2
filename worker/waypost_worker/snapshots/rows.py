"""A snapshot's rows of one partition, read from its files instead of a database. Verify can start with them, and can
check them.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import orjson
from typing_extensions import override

from waypost.model.limits import canonical_metadata
from waypost.model.retention import RetentionPolicy
from waypost_worker.partition.ports import RejectedRow, RejectedWindow, StoredOutbox
from waypost_worker.postgres.rows import authority_of, foreign_of, policy_of, window_of
from waypost_worker.recovery.shares import Share, spread_of
from waypost_worker.recovery.verify.base_snapshot import Base
from waypost_worker.recovery.verify.rows import (
    OpenRows,
    StoredCheckpoint,
    StoredCommand,
    StoredPartition,
    StoredSession,
    Stray,
)
from waypost_worker.snapshots.files import stream_of
from waypost_worker.snapshots.manifest import Manifest
from waypost_worker.snapshots.pgcopy import CopyFormatError, rows_of
from waypost_worker.snapshots.storage import SnapshotError, Storage

_T = TypeVar("_T")
_NUMBER_BYTES: Final = 8
_POSTGRES_EPOCH_MICROS: Final = 946_684_800_000_000  # 2000-01-01 after 1970-01-01


def _number(raw: bytes) -> int:
    if len(raw) > _NUMBER_BYTES:
        raise ValueError(f"a number of {len(raw)} bytes")
    return int.from_bytes(raw, signed=True)


def _time(raw: bytes) -> int:
    return _number(raw) + _POSTGRES_EPOCH_MICROS


def _flag(raw: bytes) -> bool:
    return raw != b"\0"


def _json(raw: bytes) -> bytes:
    return raw[1:]  # behind the number of jsonb's own version


def _window(row: Mapping[str, Any]) -> RejectedWindow:
    # A snapshot of an earlier version has none. Restoring it counts from its position on, as its migration does.
    raw = row.get("rejected_window")
    return RejectedWindow(since=row["next_offset"]) if raw is None else window_of(raw)


_NULLABLE: Final = {
    "sessions": frozenset(("policy", "erased_at")),
    "checkpoints": frozenset(("command_id", "imported_id")),
    "recent_commands": frozenset(("number",)),
    "partitions": frozenset(
        (
            *("anchor", "producer_id", "producer_epoch", "default_policy", "former_producer_ids"),
            *("authority", "blocked_offset", "skip_offset"),
        )
    ),
    "outbox": frozenset(),
    "rejected_commands": frozenset(
        ("session_id", "command_id", "key", "value", "value_bytes", "headers_bytes")
    ),
}
# A name means the same in every table.
READ: Final[Mapping[str, Callable[[bytes], Any]]] = {
    **dict.fromkeys(
        ("session_id", "imported_id", "name", "command_id", "code", "message"), lambda raw: raw.decode()
    ),
    **dict.fromkeys(
        (
            *("partition", "partitions", "next_offset", "epoch", "emitted", "results_offset"),
            *("producer_id", "producer_epoch", "counter", "checkpoints", "number", "position"),
            *(
                "first_offset",
                "last_offset",
                "offset",
                "blocked_offset",
                "skip_offset",
                "value_bytes",
                "headers_bytes",
            ),
        ),
        _number,
    ),
    **dict.fromkeys(("taken_at", "recorded_at", "first_recorded_at", "last_recorded_at", "erased_at"), _time),
    **dict.fromkeys(("data", "anchor", "payload", "key", "value", "headers"), lambda raw: raw),
    **dict.fromkeys(
        (
            *("policy", "metadata", "default_policy", "default_commands"),
            *("rejected_window", "foreign_results", "former_producer_ids", "authority"),
        ),
        _json,
    ),
    "pinned": _flag,
}


def _null(name: str, table: str) -> Any:
    if name not in _NULLABLE[table]:
        raise ValueError(f"{name!r} is null")
    return None


def _partition(row: dict[str, Any]) -> StoredPartition:
    return StoredPartition(
        row["partitions"],
        row["next_offset"],
        row["anchor"],
        row["emitted"],
        row["results_offset"],
        policy_of(row["default_policy"]) or RetentionPolicy(),
        orjson.loads(row["default_commands"]),
        authority_of(row.get("authority")),
        _window(row),
        foreign_of(row.get("foreign_results") or b"[]"),
    )


def _session(row: dict[str, Any]) -> StoredSession:
    return StoredSession(
        row["session_id"],
        row["counter"],
        policy_of(row["policy"]),
        row["checkpoints"],
        row["first_recorded_at"],
        row["last_recorded_at"],
        row.get("erased_at"),
    )


def _checkpoint(row: dict[str, Any]) -> StoredCheckpoint:
    return StoredCheckpoint(**{**row, "metadata": canonical_metadata(orjson.loads(row["metadata"]))})


def _rejected(row: dict[str, Any]) -> RejectedRow:
    del row["partition"]
    headers = [
        (name, None if text is None else text.encode("latin-1"))
        for name, text in orjson.loads(row["headers"])
    ]
    return RejectedRow(**{**row, "headers": headers})


def _outbox(row: dict[str, Any]) -> StoredOutbox:
    return StoredOutbox(row["first_offset"], row["last_offset"], row["payload"])


def _holds(share: Share, row: dict[str, Any]) -> bool:
    session_id = row["session_id"]
    return share.whole or share.holds(spread_of(session_id.encode()))


def _holds_rejected(share: Share, row: dict[str, Any]) -> bool:
    return share.holds(spread_of(row["key"], row["offset"]))


class SnapshotRows(Base):
    """The rows of one partition in a kept snapshot. Reading raises SnapshotError if a file is not as it was written."""

    def __init__(self, storage: Storage, manifest: Manifest, partition: int) -> None:
        self.name = manifest.name
        self._storage = storage
        self._manifest = manifest
        self._part = next((part for part in manifest.parts if part.partition == partition), None)

    @override
    def count(self, table: str) -> int:
        return 0 if self._part is None else self._part.rows[table]

    @override
    async def partition(self) -> StoredPartition | None:
        async for partition in self._rows("partitions", _partition):
            return partition
        return None

    @override
    def sessions(self, share: Share) -> AsyncIterator[StoredSession]:
        return self._rows("sessions", _session, partial(_holds, share))

    @override
    def checkpoints(self, share: Share) -> AsyncIterator[StoredCheckpoint]:
        return self._rows("checkpoints", _checkpoint, partial(_holds, share))

    @override
    def commands(self, share: Share) -> AsyncIterator[StoredCommand]:
        return self._rows("recent_commands", lambda row: StoredCommand(**row), partial(_holds, share))

    @override
    def rejected(self, share: Share) -> AsyncIterator[RejectedRow]:
        return self._rows("rejected_commands", _rejected, partial(_holds_rejected, share))

    @override
    async def outbox(self) -> Sequence[StoredOutbox]:
        return sorted([entry async for entry in self._rows("outbox", _outbox)])

    @override
    async def strays(self, partitions: int) -> Sequence[Stray]:
        # None: rows were taken by their sessions.
        return ()

    async def _rows(
        self,
        table: str,
        make: Callable[[dict[str, Any]], _T],
        wanted: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> AsyncIterator[_T]:
        """Read a table, and make something of each wanted row."""
        if self._part is None:
            return
        columns = self._manifest.columns[table]
        if unknown := [name for name in columns if name not in READ]:
            raise SnapshotError(
                f"the snapshot {self.name!r} has a column {unknown[0]!r} of {table!r} that this version does not know: "
                f"use the one that took it, Waypost {self._manifest.waypost}"
            )
        readers = [(name, READ[name]) for name in columns]
        files = [file for file in self._part.files if file.table == table]
        count = 0
        try:
            async for rows in rows_of(stream_of(self._storage, self.name, files)):
                for fields in rows:
                    count += 1
                    row = {
                        name: _null(name, table) if raw is None else read(raw)
                        for (name, read), raw in zip(readers, fields, strict=True)
                    }
                    if wanted(row):
                        yield make(row)
        except (CopyFormatError, ValueError, TypeError, LookupError, AttributeError) as error:
            # The author of a snapshot chooses its columns and their contents.
            raise SnapshotError(
                f"{table!r} of partition {self._part.partition} of the snapshot {self.name!r} can't be read: "
                f"{error or type(error).__name__}. Use another snapshot"
            ) from None
        if count != self._part.rows[table]:
            raise SnapshotError(
                f"partition {self._part.partition} of the snapshot {self.name!r} has {count} rows of {table!r} instead "
                f"of {self._part.rows[table]}. Use another snapshot"
            )


class KeptSnapshots(OpenRows):
    """Opens them where a database is opened otherwise, so that a snapshot itself can be verified."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage = storage
        self._manifest = manifest

    @override
    @asynccontextmanager
    async def __call__(self, partition: int) -> AsyncIterator[SnapshotRows]:
        yield SnapshotRows(self._storage, self._manifest, partition)
