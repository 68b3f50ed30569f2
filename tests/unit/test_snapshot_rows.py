"""A snapshot's rows: whatever somebody wrote into its files, reading gives rows or a SnapshotError."""

import asyncio
import contextlib
import struct
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_snapshot_pgcopy import written

from waypost_worker.recovery.shares import WHOLE, Share
from waypost_worker.snapshots.files import TableWriter
from waypost_worker.snapshots.manifest import TABLES, AppliedMigration, Manifest, Part
from waypost_worker.snapshots.rows import READ, SnapshotRows
from waypost_worker.snapshots.storage import DirectoryStorage, SnapshotError

NAME = "20261124T120000000Z-1a2b3c"
COLUMNS = {
    "sessions": "session_id partition counter policy checkpoints first_recorded_at last_recorded_at",
    "checkpoints": "session_id number imported_id name taken_at recorded_at data metadata pinned command_id position",
    "recent_commands": "session_id position command_id number",
    "partitions": "partition partitions next_offset epoch emitted results_offset producer_id producer_epoch anchor "
    "default_policy default_commands rejected_window foreign_results former_producer_ids",
    "outbox": "partition first_offset last_offset payload",
    "rejected_commands": "partition offset session_id command_id code message key value headers recorded_at "
    "value_bytes headers_bytes",
}
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.one_of(
    st.none(),
    st.binary(max_size=12),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: struct.pack("!q", number)),
    st.text(max_size=5).map(str.encode),
    JSONS.map(orjson.dumps),
    JSONS.map(lambda value: b"\x01" + orjson.dumps(value)),
    st.just(bytes(2_000)),
)


async def read_all(rows: SnapshotRows, table: str, share: Share = WHOLE) -> int:
    match table:
        case "partitions":
            return int(await rows.partition() is not None)
        case "outbox":
            return len(await rows.outbox())
    read: Any = {"recent_commands": rows.commands, "rejected_commands": rows.rejected}.get(table)
    return len([row async for row in (read or getattr(rows, table))(share)])


async def of_hostile_rows(
    table: str, columns: list[str], rows: list[list[bytes | None]], share: Share = WHOLE
) -> int:
    with tempfile.TemporaryDirectory() as directory:
        storage = DirectoryStorage(Path(directory))
        writer = TableWriter(storage, NAME, 0, table)
        await writer.write(written([tuple(row) for row in rows]))
        await writer.end(len(rows))
        part = Part(0, 1, 1, -1, 0, None, {**dict.fromkeys(TABLES, 0), table: len(rows)}, writer.files)
        manifest = Manifest(
            NAME,
            "2026-11-24T12:00:00Z",
            "0.2.0",
            180000,
            "c",
            "r",
            1,
            [AppliedMigration(1, "first", "0" * 64)],
            {key: columns if key == table else ["partition"] for key in TABLES},
            [part],
        )
        return await read_all(SnapshotRows(storage, manifest, 0), table, share)


def test_every_column_is_known() -> None:
    assert COLUMNS.keys() == set(TABLES)
    assert {name for text in COLUMNS.values() for name in text.split()} <= READ.keys()


@pytest.mark.parametrize("table", TABLES)
@given(st.data())
def test_hostile_rows_are_rows_or_a_snapshot_error(table: str, data: st.DataObject) -> None:
    columns = COLUMNS[table].split()
    if data.draw(st.booleans(), "other columns"):
        columns = data.draw(st.lists(st.sampled_from(sorted(READ)), min_size=1, max_size=14, unique=True))
    rows = data.draw(st.lists(st.lists(FIELDS, min_size=len(columns), max_size=len(columns)), max_size=3))
    with contextlib.suppress(SnapshotError):
        assert asyncio.run(of_hostile_rows(table, columns, rows)) <= len(rows)


async def test_nothing_is_made_of_rows_outside_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify reads all files once for each share of the sessions."""
    made: list[bytes] = []
    monkeypatch.setattr("waypost_worker.snapshots.rows.canonical_metadata", made.append)
    number = struct.pack("!q", 1)
    rows: list[list[bytes | None]] = [
        [b"s%d" % one, number, None, b"", number, number, b"1", b"\x01{}", b"\0", None, number]
        for one in range(100)
    ]
    columns = COLUMNS["checkpoints"].split()
    found = [
        await of_hostile_rows("checkpoints", columns, rows, share)
        for share in (WHOLE.first_half(), WHOLE.first_half().following(WHOLE.high))
    ]
    assert all(found)
    assert sum(found) == len(made) == 100
