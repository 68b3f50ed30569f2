"""A snapshot of a million checkpoints, there and back, equal by hash: `pytest -m long` with this file."""

import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from waypost import Topics
from waypost_worker.devserver import Servers
from waypost_worker.snapshots.create import create
from waypost_worker.snapshots.restore import restore
from waypost_worker.snapshots.storage import DirectoryStorage

pytestmark = pytest.mark.long
ROWS = 1_000_000
PER_SESSION = 50
PARTITIONS = 8

FILL = (
    "insert into waypost.partitions (partition, partitions, next_offset) "
    f"select p, {PARTITIONS}, {ROWS} from generate_series(0, {PARTITIONS - 1}) p",
    "insert into waypost.sessions (session_id, partition, counter, checkpoints, first_recorded_at, last_recorded_at) "
    f"select 's-' || n, n % {PARTITIONS}, {PER_SESSION}, {PER_SESSION}, now(), now() "
    f"from generate_series(0, {ROWS // PER_SESSION - 1}) n",
    "insert into waypost.checkpoints (session_id, number, name, taken_at, recorded_at, data, metadata, pinned, "
    "command_id, position) "
    f"select 's-' || n / {PER_SESSION}, 1 + n % {PER_SESSION}, 'step', now(), now(), "
    """convert_to('{"text": "' || repeat(md5(n::text), 6) || '"}', 'UTF8'), '{}', n % 50 = 0, md5(n::text), n """
    f"from generate_series(0, {ROWS - 1}) n",
    "insert into waypost.recent_commands (session_id, position, command_id) "
    f"select 's-' || n, n, 'c' from generate_series(0, {ROWS // PER_SESSION - 1}) n",
)
HASHES = {
    "checkpoints": "session_id, number",
    "sessions": "session_id",
    "recent_commands": "session_id, position",
    "partitions": "partition",
}


async def hashes(connection: Any) -> dict[str, str]:
    return {
        table: await connection.fetchval(
            f"select md5(string_agg(md5(t::text), '' order by {order})) from waypost.{table} t"
        )
        for table, order in HASHES.items()
    }


async def test_a_million_checkpoints_come_back_equal(servers: Servers, database: str, tmp_path: Path) -> None:
    target = servers.postgres.create_database("snapshot_scale")
    source: Any = await asyncpg.connect(database)
    empty: Any = await asyncpg.connect(target)
    try:
        for statement in FILL:
            await source.execute(statement)
        storage = DirectoryStorage(tmp_path)
        began = time.monotonic()
        manifest = await create([source], storage, Topics("scale"), "waypost", lambda *_: None)
        taken = time.monotonic()
        await restore([empty], storage, manifest, "waypost", lambda *_: None)
        filled = time.monotonic()
        assert manifest.rows("checkpoints") == ROWS
        assert len({file.path for part in manifest.parts for file in part.files}) > 4 * PARTITIONS
        assert await hashes(empty) == await hashes(source)
        raw = sum(file.raw_size for part in manifest.parts for file in part.files)
        print(
            f"{ROWS} checkpoints, {raw / 1e6:.0f} MB in {manifest.size / 1e6:.0f} MB: taken in "
            f"{taken - began:.0f} s, restored in {filled - taken:.0f} s"
        )
    finally:
        await source.close()
        await empty.close()
        servers.postgres.drop_database("snapshot_scale")
