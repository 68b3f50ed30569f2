"""Writes the golden files of the format that this version has: ``python -m tests.golden 0.2``.

Once a format is released its files are never written again: they are what later versions must still read.
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
from tests.golden.files import HERE, write_records
from tests.golden.snapshot import write_snapshot
from tests.oracle.books import read_all
from tests.support import workload
from tests.support.database_state import state_hash
from tests.support.deployment import deployment

from waypost.model.times import format_micros
from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers
from waypost_worker.devserver.postgres_programs import binary
from waypost_worker.postgres.migrate import migrations
from waypost_worker.postgres.statements import statement

PARTITIONS = 3
COUNT = 240
# Session, seconds idle, pinned too: two expire, one is kept, and one expires once more, which forgets its ids.
_EXPIRIES = (
    (("run-1-0", 0, False), ("run-1-1", 0, True), ("run-1-2", 3600, False)),
    (("run-1-0", 0, False),),
)
# Session, type and body: a rejected command and a rollback before the erasure, others after it, one of which can't be
# read, a second erasure, and that of a session which never was.
_ERASURES = (
    ("run-1-3", EventType.PIN, b'{"checkpoint_id":"none"}'),
    ("run-1-3", EventType.CREATE, b'{"name":"last","data":{"text":"to be erased"}}'),
    ("run-1-3", EventType.ERASE, b"{}"),
    ("run-1-3", EventType.CREATE, b'{"name":"late","data":{"text":"too late"}}'),
    ("run-1-4", EventType.ERASE, b"{}"),
    ("run-1-4", EventType.CREATE, b'{"name":"late","data":{"text":"too late"}}'),
    ("run-1-4", EventType.CREATE, b'{"name":"late","data":{"text":"unreadable"'),
    ("run-1-4", EventType.ERASE, b"{}"),
    ("run-1-4", EventType.CLEAR, b"{}"),
    ("never-was", EventType.ERASE, b"{}"),
)


def main() -> None:
    """Run a small log with everything in it, and keep log, results, database and hashes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", help="such as 0.2; a folder of this name is made")
    parser.add_argument("--migrations", type=int, default=len(migrations()), help="only the first so many")
    given = parser.parse_args()
    folder = HERE / given.format
    folder.mkdir()
    with tempfile.TemporaryDirectory() as state, Servers(Path(state)) as servers:
        asyncio.run(_write(servers, folder, given.format, given.migrations))


async def _write(servers: Servers, folder: Path, name: str, count: int) -> None:
    dsn = servers.postgres.create_database("golden")
    await _prepare(dsn, count)
    async with deployment(servers.endpoints, dsn, f"golden-{name}", PARTITIONS) as made:
        wanted = workload.commands(1, COUNT, PARTITIONS, sessions=12, size=30)
        published = await workload.publish(made.producer, made.topics.commands, wanted)
        owners = [made.own(partition) for partition in range(PARTITIONS)]
        await made.answered(published)
        for expiries in _EXPIRIES:
            await workload.publish(made.producer, made.topics.commands, map(_expiry, expiries))
            published += len(expiries)
            await made.answered(published)
        erasures = (_command(session, kind, body) for session, kind, body in _ERASURES)
        await workload.publish(made.producer, made.topics.commands, erasures)
        await made.answered(published + len(_ERASURES))
        for owner in owners:
            await owner.stop()
        for topic, file in ((made.topics.commands, "commands"), (made.topics.results, "results")):
            records = await read_all(servers.endpoints, topic)
            write_records(
                folder / f"{file}.jsonl", [one for number in sorted(records) for one in records[number]]
            )
    connection: Any = await asyncpg.connect(dsn)
    # Producer ids are those of the cluster that is gone: an owner would wait for appends of the old one.
    await connection.execute("update waypost.partitions set producer_id = null, producer_epoch = null")
    await connection.close()
    (folder / "database.sql").write_text(_dump(dsn))
    (folder / "state.json").write_text(json.dumps(await state_hash(dsn), indent=2) + "\n")
    await write_snapshot(dsn, folder, name)


def _expiry(one: tuple[str, int, bool]) -> workload.Command:
    session, idle_seconds, pinned = one
    idle_since = format_micros(round((time.time() - idle_seconds) * 1_000_000))
    body = orjson.dumps({"idle_since": idle_since, "pinned": pinned})
    return _command(session, EventType.EXPIRE, body)


def _command(session: str, kind: EventType, body: bytes) -> workload.Command:
    headers = command_headers(str(uuid4()), b"/golden", kind.wire, workload.TIME)
    return workload.Command(partition_of(session, PARTITIONS), session.encode(), headers, body)


async def _prepare(dsn: str, count: int) -> None:
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute(statement("create_schema"))
    await connection.execute(statement("create_migrations"))
    for one in migrations()[:count]:
        await connection.execute(one.sql)
        await connection.execute(statement("add_migration"), one.number, one.name, one.sha256)
    await connection.close()


def _dump(dsn: str) -> str:
    """The schema as SQL that any client can execute: without what only psql understands."""
    options = ("--schema=waypost", "--inserts", "--no-owner", "--no-toast-compression", "--no-comments")
    ended = subprocess.run([binary("pg_dump"), *options, dsn], capture_output=True, text=True, check=True)
    lines = [line for line in ended.stdout.splitlines() if not line.startswith(("--", "\\"))]
    return "\n".join(line for line in lines if line) + "\n"


if __name__ == "__main__":
    main()
