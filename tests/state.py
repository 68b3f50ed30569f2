"""The state that a database holds, by hash: all that the log decides, and nothing that it does not."""

import hashlib
from typing import Any

import asyncpg

TABLES = {
    "sessions": "session_id",
    "checkpoints": "session_id, number",
    "recent_commands": "session_id, position",
    "rejected_commands": 'partition, "offset"',
}
PARTITIONS = "partition, partitions, next_offset, anchor, default_policy, default_commands"


async def state_hash(dsn: str, schema: str = "waypost") -> dict[str, str]:
    """A hash for each table, over all its rows in order."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            hashes = {}
            for table, order in TABLES.items():
                hashes[table] = await _hash(connection, f'select * from "{schema}".{table} order by {order}')
            query = f'select {PARTITIONS} from "{schema}".partitions order by partition'
            hashes["partitions"] = await _hash(connection, query)
            return hashes
    finally:
        await connection.close()


async def _hash(connection: Any, query: str) -> str:
    hashed = hashlib.sha256()
    rows = 0
    async for row in connection.cursor(query, prefetch=1000):
        hashed.update(repr(tuple(row)).encode())
        rows += 1
    return f"{rows} rows, {hashed.hexdigest()[:16]}"
