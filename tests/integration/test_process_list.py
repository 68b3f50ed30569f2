"""What the process list shows of workers and embedded servers: no secret."""

import asyncio
from pathlib import Path

import pytest
from tests.support.cli import CommandLine
from tests.support.processes import arguments_of, descendants

from waypost_worker.devserver import Servers

pytestmark = pytest.mark.servers


async def test_the_process_list_shows_no_secret(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    password = database.split(":")[2].split("@")[0]
    variables = {
        "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
        "WAYPOST_POSTGRES_DSN": database,
        "WAYPOST_TOPIC_PREFIX": topic_prefix,
        "WAYPOST_GROUP_ID": topic_prefix,
    }
    started = CommandLine(tmp_path, variables).start("worker", "--processes", "2")
    try:
        await asyncio.to_thread(started.until, "2 workers: pid")
        workers = [started.process.pid, *descendants(started.process.pid)]
        embedded = descendants(servers.postgres.pid) + descendants(servers.kafka.pid)
        shown = [arguments_of(pid) for pid in (*workers, *embedded, servers.postgres.pid, servers.kafka.pid)]
    finally:
        started.stop()
    assert len(workers) >= 3
    assert not [arguments for arguments in shown if password in " ".join(arguments)]
