"""A snapshot that an older version took is restored by this one, as it was meant."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.golden.files import HERE, formats
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash

from waypost_worker.devserver import Servers


@pytest.mark.parametrize("name", formats())
async def test_an_old_snapshot_is_restored(name: str, servers: Servers, tmp_path: Path) -> None:
    folder = HERE / name
    database = f"golden_snapshot_{name.replace('.', '_')}"
    dsn = servers.postgres.create_database(database)
    line = CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": dsn,
            "WAYPOST_TOPIC_PREFIX": f"golden-{name}",
            "WAYPOST_SNAPSHOTS": str(folder / "snapshot"),
        },
    )
    try:
        ended = await asyncio.to_thread(line.run, "snapshot", "restore", "--offline", "-o", "json")
        assert ended.code == 0, ended.err
        then: dict[str, str] = json.loads((folder / "state.json").read_text())
        assert await state_hash(dsn) == then
        assert (await asyncio.to_thread(line.run, "migrate", "--dry-run", "-o", "json")).json == []
    finally:
        servers.postgres.drop_database(database)
