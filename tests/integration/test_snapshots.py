"""Snapshots on the real Postgres and Kafka: what is restored is what was taken, or nothing is changed."""

import asyncio
import hashlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.cli import WAYPOST, CommandLine, Outcome, environment
from tests.harness import Deployment, deployment
from tests.oracle.books import topic_ends

from waypost_worker.devserver import Servers
from waypost_worker.snapshots.manifest import FORMAT, TABLES
from waypost_worker.snapshots.statements import statement

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
        await here.send(pin, key, b"waypost.checkpoint.pin")
        await here.send(b"nope", key)
    await here.answered(sum((await topic_ends(here.endpoints, here.topics.commands)).values()))
    for owner in owners:
        await owner.stop()


async def contents(dsn: str) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("select to_regclass('waypost.partitions')") is None:
            return {}
        return {
            table: [
                row[0] for row in await connection.fetch(f"select t::text from waypost.{table} t order by 1")
            ]
            for table in TABLES
        }
    finally:
        await connection.close()


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


async def test_every_table_of_the_schema_is_in_a_snapshot(here: Deployment) -> None:
    rows = await here.pool.fetch(
        "select tablename from pg_tables where schemaname = 'waypost' and tablename not in ('migrations', 'shard')"
    )
    assert {row[0] for row in rows} == set(TABLES)


async def test_every_column_that_is_not_computed_is_in_a_snapshot(here: Deployment) -> None:
    for table in TABLES:
        wanted = await here.pool.fetch(
            "select attname::text from pg_attribute where attrelid = ('waypost.' || $1)::regclass and attnum > 0 "
            "and not attisdropped and attgenerated = '' order by attnum",
            table,
        )
        async with here.pool.acquire() as connection:
            prepared = await connection.prepare(statement(f"copy_{table}", "waypost"))
            taken = [attribute.name for attribute in prepared.get_attributes()]
        assert sorted(taken) == sorted(row[0] for row in wanted), table


async def test_what_is_restored_is_what_was_taken_and_workers_go_on_from_there(
    here: Deployment, line: CommandLine, empty: str, servers: Servers
) -> None:
    await worked(here)
    before = await contents(here.dsn)
    made = await taken(line)
    assert (made["sessions"], made["checkpoints"], made["rejected_commands"]) == (6, 30, 6)
    for command in (("list",), ("check",), ("check", made["name"], "--offline")):
        people = await run(line, "snapshot", *command)
        assert people.code == 0
        assert made["name"] in people.out
        assert max(len(row) for row in people.out.splitlines()) <= 80
    # The log goes on, and the results of what comes are in the topic already.
    await worked(here, 12)
    assert await contents(here.dsn) != before

    plan = await restored(line, empty, "--dry-run")
    assert (plan.code, plan.json["restored"]) == (0, False)
    assert await contents(empty) == {}
    ended = await restored(line, empty)
    assert ended.code == 0, ended.err
    assert ended.json["name"] == made["name"]
    assert "start a worker" in ended.err
    assert await contents(empty) == before
    async with deployment(servers.endpoints, empty, here.topics.prefix, PARTITIONS) as there:
        for partition in range(PARTITIONS):
            there.own(partition)
        await there.create(there.sessions(0)[0], after="the restore")
        await there.balanced()


async def test_a_snapshot_is_of_one_moment_while_workers_go_on(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    for partition in range(PARTITIONS):
        here.own(partition)
    sessions = [name for partition in range(PARTITIONS) for name in here.sessions(partition)]
    for number in range(200):
        await here.create(sessions[number % 6], step=number)
        if number == 100:
            making = line.start("snapshot", "create", "-o", "json")
    await here.answered(200)
    try:
        made = (await asyncio.to_thread(making.wait)).json
    finally:
        making.end()
    assert (await restored(line, empty)).code == 0
    # A policy keeps all of these: so many commands applied, so many rows.
    rows = await contents(empty)
    assert sum(made["positions"].values()) == len(rows["checkpoints"]) > 0


async def test_a_replay_goes_on_from_a_restored_snapshot(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    await worked(here, 12)
    assert (await restored(line, empty)).code == 0
    ended = await run(line, "replay", "--onto-backup", "--postgres-dsn", empty, "-o", "json")
    assert ended.code == 0, ended.err
    ours, theirs = await contents(here.dsn), await contents(empty)
    for table in ("sessions", "checkpoints", "recent_commands", "rejected_commands"):
        assert theirs[table] == ours[table], table
    verified = await run(line, "verify", "--postgres-dsn", empty)
    assert verified.code == 0, verified.err


async def test_a_log_cut_past_the_position_of_a_backup_is_bridged_by_a_snapshot(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    """Drill: Postgres is lost, its backup is older than where the log begins, a snapshot is not."""
    await worked(here)
    backup = await taken(line)
    await worked(here, 12)
    newer = await taken(line)
    await worked(here, 12)
    for partition, position in newer["positions"].items():
        await _trim(here, here.topics.commands, int(partition), position)
    refused = await restored(line, empty, backup["name"])
    assert "retention removed what lies between" in said(refused)
    assert (await restored(line, empty, newer["name"])).code == 0
    ended = await run(line, "replay", "--onto-backup", "--postgres-dsn", empty)
    assert ended.code == 0, ended.err
    ours, theirs = await contents(here.dsn), await contents(empty)
    for table in ("sessions", "checkpoints", "recent_commands", "rejected_commands"):
        assert theirs[table] == ours[table], table


async def test_a_schema_of_its_own_can_be_filled_beside_the_old_one(
    here: Deployment, line: CommandLine
) -> None:
    await worked(here)
    await taken(line)
    assert (await run(line, "snapshot", "restore", "--schema", "side")).code == 0
    session = here.sessions(0)[0]
    side = (await run(line, "session", "export", session, "--schema", "side")).out
    assert side == (await run(line, "session", "export", session)).out
    again = await run(line, "snapshot", "restore", "--schema", "side")
    assert "the schema 'side' is not empty" in again.error


async def test_an_empty_schema_that_fits_is_filled(here: Deployment, line: CommandLine, empty: str) -> None:
    await worked(here)
    await taken(line)
    assert (await run(line, "migrate", "--postgres-dsn", empty)).code == 0
    assert (await restored(line, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)


async def test_a_snapshot_of_an_older_schema_is_restored_and_brought_up_to_date(
    here: Deployment, line: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here)
    name = (await taken(line))["name"]
    assert await here.pool.fetchval("select count(*) from waypost.migrations") > 1
    # What came with the second migration is computed, so the rows are those that the first version had.
    _edit(lambda fields: fields.update(migrations=fields["migrations"][:1]))(tmp_path / "snapshots" / name)
    assert (await restored(line, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)
    assert (await run(line, "migrate", "--dry-run", "--postgres-dsn", empty, "-o", "json")).json == []


# What must not be restored.


@dataclass(frozen=True)
class Damage:
    do: Callable[[Path], None]
    words: str


def _files(snapshot: Path) -> list[Path]:
    return sorted(snapshot.rglob("checkpoints-*.zst"))


def _cut(snapshot: Path) -> None:
    raw = _files(snapshot)[-1].read_bytes()
    _files(snapshot)[-1].write_bytes(raw[:-1])


def _flip(snapshot: Path) -> None:
    raw = bytearray(_files(snapshot)[-1].read_bytes())
    raw[len(raw) // 2] ^= 1
    _files(snapshot)[-1].write_bytes(raw)


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A manifest that was written by something else: its checksum fits."""

    def edit(snapshot: Path) -> None:
        path = snapshot / "manifest.json"
        fields = orjson.loads(path.read_bytes())
        del fields["sha256"]
        change(fields)
        text = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        path.write_bytes(orjson.dumps({**fields, "sha256": hashlib.sha256(text).hexdigest()}))

    return edit


DAMAGES = {
    "a file is cut": Damage(_cut, "bytes instead of"),
    "a bit is flipped": Damage(_flip, "another checksum than when it was written"),
    "a file is missing": Damage(lambda snapshot: _files(snapshot)[-1].unlink(), "is missing"),
    "no manifest": Damage(lambda snapshot: (snapshot / "manifest.json").unlink(), "was never completed"),
    "a cut manifest": Damage(lambda s: os.truncate(s / "manifest.json", 500), "can't be read"),
    "another version": Damage(
        _edit(lambda f: f.update(version=2)), f"this Waypost reads '{FORMAT}', version 1"
    ),
    "a newer schema": Damage(
        _edit(lambda f: f["migrations"].append({"number": 999, "name": "later", "sha256": "0" * 64})),
        "this version knows only",
    ),
    "another topic's name": Damage(
        _edit(lambda f: f.update(commands_topic="other.commands")), "is of the topic 'other.commands'"
    ),
    "other rows than it says": Damage(
        _edit(lambda f: f["parts"][-1]["rows"].update(checkpoints=1)), "rows of 'checkpoints' instead of 1"
    ),
    "another record before its position": Damage(
        _edit(lambda f: f["parts"][0].update(anchor="00" * 16)), "ends with another record at offset"
    ),
    "a position behind the log": Damage(
        _edit(lambda f: f["parts"][0].update(next_offset=10_000)), "the topic was recreated or cut"
    ),
    "another partition count": Damage(_edit(lambda f: f.update(partitions=3)), "it belongs to another topic"),
}


async def test_nothing_of_a_damaged_or_foreign_snapshot_is_restored(
    here: Deployment, line: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here)
    name = (await taken(line))["name"]
    whole = tmp_path / "snapshots" / name
    for number, (what, damage) in enumerate(DAMAGES.items()):
        place = tmp_path / f"damaged-{number}"
        await asyncio.to_thread(shutil.copytree, whole.parent, place)
        damage.do(place / name)
        ended = await restored(line, empty, "--at", str(place))
        words = "holds no complete snapshot" if what == "no manifest" else damage.words
        assert words in said(ended), what
        named = await run(line, "snapshot", "restore", name, "--postgres-dsn", empty, "--at", str(place))
        assert damage.words in said(named), what
        assert await contents(empty) == {}, what
        checked = await run(line, "snapshot", "check", name, "--at", str(place))
        if what != "other rows than it says":  # the files are as they were written
            assert damage.words in said(checked), what
    assert (await restored(line, empty)).code == 0


async def test_a_database_in_use_stays_as_it_is(here: Deployment, line: CommandLine) -> None:
    await worked(here)
    await taken(line)
    before = await contents(here.dsn)
    assert "is not empty: there are rows in 'partitions'" in said(await restored(line, here.dsn))
    assert await contents(here.dsn) == before


async def test_a_log_that_begins_after_the_snapshot_is_told(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    for partition in range(PARTITIONS):
        here.own(partition)
    session = here.sessions(0)[0]
    for _ in range(5):
        last = await here.create(session)
    await here.answered(30 + 12 + 5)
    await _trim(here, here.topics.commands, 0, last)
    ended = await restored(line, empty)
    assert "retention removed what lies between" in said(ended)
    assert await contents(empty) == {}
    findings = (await run(line, "doctor", "-o", "json")).json
    (told,) = [each for each in findings if each["subject"] == "log and snapshots"]
    assert told["level"] == "error"
    assert "partition 0: the log begins after the newest snapshot" in told["message"]
    await taken(line)
    findings = (await run(line, "doctor", "-o", "json")).json
    (told,) = [each for each in findings if each["subject"] == "log and snapshots"]
    assert (told["level"], told["message"].endswith("and the log overlap")) == ("ok", True)
    assert (await run(line, "snapshot", "check")).code == 0


async def _trim(here: Deployment, topic: str, partition: int, before: int) -> None:
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=here.endpoints.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})
    finally:
        await admin.close()


# Ends in the middle.


async def test_a_full_disk_ends_with_one_line_and_no_snapshot(
    here: Deployment, line: CommandLine, tmp_path: Path
) -> None:
    here.own(0)
    session = here.sessions(0)[0]
    await here.create(session, noise=os.urandom(300_000).hex())
    await here.answered(1)
    ended = await asyncio.to_thread(
        subprocess.run,
        [*WAYPOST, "snapshot", "create"],
        check=False,
        cwd=tmp_path,
        env=environment(line.settings),
        capture_output=True,
        text=True,
        # The disk of this process is full after 100 KB of a file.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "can't be written: File too large. The snapshot is not complete" in ended.stderr
    (row,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert row["state"] == "incomplete"
    assert not any(name.endswith(".part") for _, _, names in os.walk(tmp_path) for name in names)
    assert (await taken(line))["checkpoints"] == 1


async def _until_blocked(here: Deployment, connection: Any) -> None:
    async def blocked() -> bool:
        return bool(
            await connection.fetchval(
                "select count(*) from pg_locks l join pg_database d on d.oid = l.database "
                "where not granted and d.datname = current_database()"
            )
        )

    await here.until(blocked)


async def test_a_snapshot_that_is_killed_does_not_count_and_can_be_removed(
    here: Deployment, line: CommandLine
) -> None:
    await worked(here)
    blocker: Any = await asyncpg.connect(here.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("lock table waypost.rejected_commands in access exclusive mode")
    making = line.start("snapshot", "create")
    try:
        await _until_blocked(here, blocker)
        await asyncio.to_thread(making.stop, signal.SIGKILL)
    finally:
        making.end()
        await transaction.rollback()
        await blocker.close()
    (left,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert left["state"] == "incomplete"
    assert list((line.directory / "snapshots" / left["name"]).rglob("checkpoints-*"))
    assert "holds no complete snapshot" in said(await run(line, "snapshot", "check"))
    made = await taken(line)
    plan = (await run(line, "snapshot", "prune", "--keep", "1", "--dry-run", "-o", "json")).json
    assert [row["name"] for row in plan] == [left["name"]]
    assert len((await run(line, "snapshot", "list", "-o", "json")).json) == 2
    assert (await run(line, "snapshot", "prune", "--keep", "1", "--yes")).code == 0
    (kept,) = (await run(line, "snapshot", "list", "-o", "json")).json
    assert (kept["name"], kept["state"]) == (made["name"], "complete")
    assert (await run(line, "snapshot", "check")).code == 0


async def test_a_restore_that_is_killed_leaves_nothing_and_can_be_started_again(
    here: Deployment, line: CommandLine, empty: str
) -> None:
    await worked(here)
    await taken(line)
    assert (await run(line, "migrate", "--postgres-dsn", empty)).code == 0
    blocker: Any = await asyncpg.connect(empty)
    transaction = blocker.transaction()
    await transaction.start()
    # It may look at the table, but not fill it: the tables before it are filled by then.
    await blocker.execute("lock table waypost.checkpoints in share mode")
    filling = line.start("snapshot", "restore", "--postgres-dsn", empty)
    try:
        await _until_blocked(here, blocker)
        await asyncio.to_thread(filling.stop, signal.SIGKILL)
    finally:
        filling.end()
        await transaction.rollback()
        await blocker.close()
    assert not any((await contents(empty)).values())
    assert (await restored(line, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)


async def test_restoring_twice_at_once_fills_it_once(here: Deployment, line: CommandLine, empty: str) -> None:
    await worked(here)
    await taken(line)
    both = [line.start("snapshot", "restore", "--postgres-dsn", empty) for _ in range(2)]
    try:
        ended = [await asyncio.to_thread(each.wait) for each in both]
    finally:
        for each in both:
            each.end()
    assert sorted(each.code for each in ended) == [0, 1]
    (lost,) = [each for each in ended if each.code]
    assert "is not empty" in lost.err
    assert await contents(empty) == await contents(here.dsn)


# Object storage.


@pytest.fixture
def bucket(line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """The same, with snapshots in a bucket of an S3-compatible server."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    client = boto3.client(
        "s3",
        endpoint_url=access["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket="backups")
    settings = {**line.settings, **access, "WAYPOST_SNAPSHOTS": "s3://backups/waypost/prod"}
    yield replace(line, settings=settings)
    server.stop()


async def test_object_storage_holds_the_same(
    here: Deployment, bucket: CommandLine, empty: str, tmp_path: Path
) -> None:
    await worked(here)
    assert (await run(bucket, "snapshot", "list")).err == "s3://backups/waypost/prod holds no snapshots\n"
    made = await taken(bucket)
    assert made["at"] == "s3://backups/waypost/prod"
    assert (await run(bucket, "snapshot", "check")).code == 0
    assert (await restored(bucket, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)
    local = CommandLine(tmp_path, {**bucket.settings, "WAYPOST_SNAPSHOTS": str(tmp_path / "local")})
    sizes = [run["bytes"] for run in (await taken(local), made)]
    assert sizes[0] == sizes[1] > 0
    second = await taken(bucket)
    assert (await run(bucket, "snapshot", "prune", "--keep", "1", "--yes")).code == 0
    assert [row["name"] for row in (await run(bucket, "snapshot", "list", "-o", "json")).json] == [
        second["name"]
    ]


async def test_object_storage_that_is_away_or_refuses_is_told_in_one_line(
    here: Deployment, bucket: CommandLine
) -> None:
    await worked(here, 6)
    missing = await run(bucket, "snapshot", "create", "--at", "s3://nobodys-bucket/x")
    assert "s3://nobodys-bucket/x/" in said(missing)
    unknown = await run(bucket, "snapshot", "create", "--at", "ftp://somewhere/x")
    assert "ftp://somewhere/x can't be used" in said(unknown)
