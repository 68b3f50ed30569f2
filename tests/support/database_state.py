"""The state that a database holds: by hash, all that the log decides and nothing that it does not; or row by row."""

import hashlib
from collections.abc import Iterable
from typing import Any

import asyncpg

# The columns that the log decides, in the order in which the first format had them.
COLUMNS = {
    "sessions": "session_id, partition, counter, policy, checkpoints, first_recorded_at, last_recorded_at",
    "checkpoints": (
        "session_id, number, imported_id, name, taken_at, recorded_at, data, metadata, pinned, command_id, position"
    ),
    "recent_commands": "session_id, position, command_id, number",
    "rejected_commands": (
        'partition, "offset", session_id, command_id, code, message, key, value, headers, recorded_at'
    ),
    "partitions": "partition, partitions, next_offset, anchor, default_policy, default_commands",
}
# A column that came later is told only if it says something, so that old hashes hold.
_SINCE = {
    "counter": (
        "counter + coalesce(extract(epoch from (to_jsonb(sessions) ->> 'erased_at')::timestamptz) * 1000000, 0)::bigint"
    ),
    "default_commands": "default_commands || coalesce(nullif(to_jsonb(partitions) -> 'authority', 'null'), '[]')",
}


async def state_hash(dsn: str, schema: str = "waypost") -> dict[str, str]:
    """A hash for each table, over all its rows in order."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {
                table: await _hash(
                    connection, f'select {_told(columns)} from "{schema}".{table} order by 1, 2'
                )
                for table, columns in COLUMNS.items()
            }
    finally:
        await connection.close()


def _told(columns: str) -> str:
    for name, expression in _SINCE.items():
        columns = columns.replace(name, expression)
    return columns


async def _hash(connection: Any, query: str) -> str:
    hashed = hashlib.sha256()
    rows = 0
    async for row in connection.cursor(query, prefetch=1000):
        hashed.update(repr(tuple(row)).encode())
        rows += 1
    return f"{rows} rows, {hashed.hexdigest()[:16]}"


async def all_rows(dsn: str, tables: Iterable[str]) -> dict[str, list[str]]:
    """All rows of these tables, as text; nothing for a database without a schema."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("select to_regclass('waypost.partitions')") is None:
            return {}
        return {
            table: [
                row[0] for row in await connection.fetch(f"select t::text from waypost.{table} t order by 1")
            ]
            for table in tables
        }
    finally:
        await connection.close()
