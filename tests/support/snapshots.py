"""What tests of snapshots share: a deployment with owners in this process, the command line, an empty database."""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import cramjam
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.oracle.books import topic_ends
from tests.support.cli import CommandLine, Outcome
from tests.support.database_state import all_rows
from tests.support.deployment import Deployment, deployment

from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.snapshots.manifest import TABLES
from waypost_worker.snapshots.pgcopy import _HEADER, _rows

PARTITIONS = 2


@pytest.fixture
async def here(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def line(here: Deployment, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": here.endpoints.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": here.dsn,
            "WAYPOST_TOPIC_PREFIX": here.topics.prefix,
            "WAYPOST_SNAPSHOTS": str(tmp_path / "snapshots"),
        },
    )


@pytest.fixture
def empty(servers: Servers, here: Deployment) -> Iterator[str]:
    """A database without a Waypost schema."""
    name = f"empty_{here.topics.prefix[-12:]}"
    yield servers.postgres.create_database(name)
    servers.postgres.drop_database(name)


async def worked(here: Deployment, count: int = 30) -> None:
    """Owners that applied commands of all kinds, refused ones too, and stopped."""
    owners = [here.own(partition) for partition in range(PARTITIONS)]
    sessions = [name for partition in range(PARTITIONS) for name in here.sessions(partition)]
    for number in range(count):
        await here.create(sessions[number % len(sessions)], step=number, text="ü\n" * (number % 5))
    for session in sessions:
        key = session.encode()
        pin = orjson.dumps({"checkpoint_id": f"{session}:1"})
        await here.send(pin, key, EventType.PIN.wire)
        await here.send(b"nope", key)
    await here.answered(sum((await topic_ends(here.endpoints, here.topics.commands)).values()))
    for owner in owners:
        await owner.stop()


async def contents(dsn: str) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    return await all_rows(dsn, TABLES)


async def taken(line: CommandLine) -> dict[str, Any]:
    ended = await run(line, "snapshot", "create", "-o", "json")
    assert ended.code == 0, ended.err
    made: dict[str, Any] = ended.json
    return made


async def restored(line: CommandLine, dsn: str, *flags: str) -> Outcome:
    return await run(line, "snapshot", "restore", "--postgres-dsn", dsn, "-o", "json", *flags)


async def run(line: CommandLine, *arguments: str) -> Outcome:
    """In a thread, for a loop runs here."""
    return await asyncio.to_thread(line.run, *arguments)


def said(ended: Outcome) -> str:
    """The last line of a failure; progress may come before it."""
    assert ended.code == 1
    assert ended.out == ""
    last = ended.err.splitlines()[-1]
    assert last.startswith("waypost: ")
    return last


async def trim(here: Deployment, topic: str, partition: int, before: int) -> None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=here.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})
    finally:
        await admin.close()


def without_columns(table: str, *names: str) -> Callable[[Path], None]:
    """A snapshot of a schema that did not have the last columns of a table yet. Each file holds whole rows."""

    def edit(snapshot: Path) -> None:
        def change(fields: dict[str, Any]) -> None:
            assert fields["columns"][table][-len(names) :] == list(names)
            del fields["columns"][table][-len(names) :]
            for file in [
                file for part in fields["parts"] for file in part["files"] if file["table"] == table
            ]:
                raw = bytes(cramjam.zstd.decompress((snapshot / file["path"]).read_bytes()))
                rows, end, _ = _rows(raw, _HEADER.size)
                cut = (
                    raw[: _HEADER.size] + b"".join(_packed(row[: -len(names)]) for row in rows) + b"\xff\xff"
                )
                assert end == len(raw)
                packed = bytes(cramjam.zstd.compress(cut))
                (snapshot / file["path"]).write_bytes(packed)
                file |= {
                    "size": len(packed),
                    "raw_size": len(cut),
                    "sha256": hashlib.sha256(packed).hexdigest(),
                }

        edited(change)(snapshot)

    return edit


def _packed(row: list[bytes | None]) -> bytes:
    fields = [b"\xff" * 4 if one is None else len(one).to_bytes(4) + one for one in row]
    return len(row).to_bytes(2) + b"".join(fields)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A manifest that was written by something else: its checksum fits."""

    def edit(snapshot: Path) -> None:
        path = snapshot / "manifest.json"
        fields = orjson.loads(path.read_bytes())
        del fields["sha256"]
        change(fields)
        text = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        path.write_bytes(orjson.dumps({**fields, "sha256": hashlib.sha256(text).hexdigest()}))

    return edit


def with_fewer_columns(path: Path, raw_size: int, count: int) -> dict[str, Any]:
    """Leave out the last columns of a file that holds one row; what the manifest says of it."""
    raw = bytes(cramjam.zstd.decompress(path.read_bytes(), output_len=raw_size))
    begin = 19  # the header of COPY's binary format
    (columns,) = struct.unpack_from("!h", raw, begin)
    at = begin + 2
    for _ in range(columns - count):
        (size,) = struct.unpack_from("!i", raw, at)
        at += 4 + max(0, size)
    raw = raw[:begin] + struct.pack("!h", columns - count) + raw[begin + 2 : at] + raw[-2:]
    packed = bytes(cramjam.zstd.compress(raw))
    path.write_bytes(packed)
    return {"size": len(packed), "raw_size": len(raw), "sha256": hashlib.sha256(packed).hexdigest()}
