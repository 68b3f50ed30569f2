"""Taking a snapshot: one transaction that sees one moment of the database, copied out partition by partition. Of
several databases each has its own moment; a partition is in one of them.

No worker is held up. Postgres keeps old rows for as long as it takes, as for any backup.
"""

import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

from waypost import __version__
from waypost.statements import load_statement
from waypost.wire.topics import Topics
from waypost_worker.postgres.migrate import applied, check_schema
from waypost_worker.snapshots.files import PIECE_BYTES, TableWriter
from waypost_worker.snapshots.manifest import (
    FILE_NAME,
    NO_KEY,
    TABLES,
    AppliedMigration,
    Manifest,
    Part,
    Signing,
)
from waypost_worker.snapshots.storage import SnapshotError, Storage

_statement = partial(load_statement, "waypost_worker.snapshots")
OnProgress = Callable[[int, int], None]  # partitions done, of


async def create(
    connections: Sequence[Any],
    storage: Storage,
    topics: Topics,
    schema: str,
    progress: OnProgress,
    piece_bytes: int = PIECE_BYTES,
    signing: Signing = NO_KEY,
) -> Manifest:
    """Write a snapshot of all partitions, its manifest last; the manifest.

    ``connections`` are asyncpg's, without a time limit for statements, one to each database. Raise SnapshotError if
    there is nothing to save or the storage fails; the files written by then do not count as a snapshot.
    """
    async with AsyncExitStack() as stack:
        positions: list[tuple[Any, Any]] = []
        for connection in connections:
            await stack.enter_async_context(
                connection.transaction(isolation="repeatable_read", readonly=True)
            )
            await connection.execute(_statement("begin", schema))
            await check_schema(connection, schema)
            rows = await connection.fetch(_statement("positions", schema))
            positions += [(row, connection) for row in rows]
        positions.sort(key=lambda each: each[0]["partition"])
        clock = await connections[0].fetchrow(_statement("taken_at", schema))
        if not positions:
            raise SnapshotError(
                "the database holds no partition: no worker has used it yet, so there is nothing to take"
            )
        name = _name(clock["taken_at"].astimezone(UTC))
        parts: list[Part] = []
        progress(0, len(positions))
        for row, connection in positions:
            parts.append(await _part(connection, storage, schema, name, row, piece_bytes))
            progress(len(parts), len(positions))
        manifest = Manifest(
            name=name,
            taken_at=clock["taken_at"].isoformat(),
            waypost=__version__,
            postgres=clock["version"],
            commands_topic=topics.commands,
            results_topic=topics.results,
            partitions=positions[0][0]["partitions"],
            migrations=[AppliedMigration(*row) for row in await applied(connections[0], schema)],
            columns=await _columns(connections[0], schema),
            parts=parts,
            signed=signing.key is not None,
        )
    await storage.put(f"{name}/{FILE_NAME}", manifest.to_json(signing))
    return manifest


async def _part(
    connection: Any, storage: Storage, schema: str, name: str, position: Any, piece_bytes: int
) -> Part:
    rows: dict[str, int] = {}
    files = []
    for table in TABLES:
        writer = TableWriter(storage, name, position["partition"], table, piece_bytes)
        sql = _statement(f"copy_{table}", schema)
        status = await connection.copy_from_query(
            sql, position["partition"], output=writer.write, format="binary"
        )
        rows[table] = int(status.rpartition(" ")[2])
        await writer.end(rows[table])
        files += writer.files
    anchor = position["anchor"]
    return Part(
        partition=position["partition"],
        next_offset=position["next_offset"],
        epoch=position["epoch"],
        emitted=position["emitted"],
        results_offset=position["results_offset"],
        anchor=None if anchor is None else anchor.hex(),
        rows=rows,
        files=files,
    )


async def _columns(connection: Any, schema: str) -> dict[str, list[str]]:
    return {
        table: [
            attribute.name
            for attribute in (await connection.prepare(_statement(f"copy_{table}", schema))).get_attributes()
        ]
        for table in TABLES
    }


def _name(taken_at: datetime) -> str:
    """Return a name. Names sort by time, and two that are created at the same time differ."""
    return f"{taken_at:%Y%m%dT%H%M%S}{taken_at.microsecond // 1000:03}Z-{secrets.token_hex(3)}"
