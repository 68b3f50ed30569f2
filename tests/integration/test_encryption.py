"""Encryption on real servers: no plaintext anywhere between the edges, and tampering never gives data."""

import asyncio
import json
import mmap
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import cramjam
import pytest
from tests.support.cli import CommandLine, Started
from tests.support.keys import key_codec
from tests.support.timeouts import PATIENCE
from tests.support.worker_deployment import own, own_worker

from waypost import (
    Codec,
    EncryptionError,
    Event,
    InvalidCommandError,
    KeyErasedError,
    MovedDataError,
    PlaintextError,
    Publisher,
    Reader,
    Subscriber,
    UnauthenticDataError,
)
from waypost_worker.devserver import Servers

__all__ = ["own", "own_worker"]
NOWHERE = "127.0.0.1:1"
#: Without compression, which would hide what is there from a search byte by byte.
PLAIN = {"compression_type": None}


@pytest.fixture
def encrypted(own: CommandLine, tmp_path: Path) -> CommandLine:
    """A deployment that accepts only encrypted data, and a command line that has its keys."""
    keys = {
        "WAYPOST_KEYS_DIRECTORY": str(tmp_path / "keys"),
        "WAYPOST_WRAPPING_KEY_FILE": str(tmp_path / "wrapping.key"),
        "WAYPOST_SNAPSHOTS": str(tmp_path / "snapshots"),
    }
    line = CommandLine(tmp_path, {**own.settings, **keys})
    for command in (
        ("keys", "create-wrapping-key", "wrapping.key"),
        ("keys", "init"),
        ("defaults", "--encrypted"),
    ):
        done = line.run(*command, *(["--yes"] if command[0] == "defaults" else []))
        assert done.code == 0, done
    return line


@pytest.fixture
async def codec(encrypted: CommandLine, tmp_path: Path) -> Codec:
    return await key_codec(tmp_path)


@pytest.fixture
async def publisher(encrypted: CommandLine, codec: Codec, own_worker: Started) -> AsyncIterator[Publisher]:
    async with open_publisher(encrypted, codec) as made:
        yield made


@pytest.fixture
async def reader(encrypted: CommandLine, codec: Codec) -> AsyncIterator[Reader]:
    async with Reader(encrypted.settings["WAYPOST_POSTGRES_DSN"], codec=codec) as made:
        yield made


def open_publisher(line: CommandLine, codec: Codec | None, **options: Any) -> Publisher:
    servers, prefix = line.settings["WAYPOST_BOOTSTRAP_SERVERS"], line.settings["WAYPOST_TOPIC_PREFIX"]
    return Publisher(servers, topic_prefix=prefix, codec=codec, kafka_options=PLAIN, **options)


async def run(line: CommandLine, *arguments: str) -> Any:
    done = await asyncio.to_thread(line.run, *arguments, "-o", "json")
    assert done.code == 0, done
    return done.json


def contains(path: Path, marker: bytes) -> bool:
    if path.suffix == ".zst":
        return marker in bytes(cramjam.zstd.decompress(path.read_bytes()))
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(marker) >= 0


def files_with(marker: str, *places: Path) -> list[Path]:
    """The files that hold a text, as it is or as JSON escapes it."""
    found = []
    for path in (path for place in places for path in place.rglob("*")):
        try:
            if path.is_file() and contains(path, marker.encode()):
                found.append(path)
        except FileNotFoundError:  # Postgres removes what it no longer needs
            continue
    return found


async def places_of(servers: Servers, line: CommandLine) -> dict[str, list[Path]]:
    """Where the bytes of this deployment are on the disk."""
    connection = await asyncpg.connect(line.settings["WAYPOST_POSTGRES_DSN"])
    try:
        oid = await connection.fetchval("select oid from pg_database where datname = current_database()")
        await connection.execute("checkpoint")
    finally:
        await connection.close()
    prefix = line.settings["WAYPOST_TOPIC_PREFIX"]
    topics = [path for path in (servers.state_dir / "kafka").rglob(f"{prefix}.*") if path.is_dir()]
    data = servers.postgres.data_directory
    return {
        "commands": [path for path in topics if path.name.startswith(f"{prefix}.commands")],
        "results": [path for path in topics if path.name.startswith(f"{prefix}.results")],
        "Postgres": [data / "base" / str(oid)],
        "WAL": [data / "pg_wal"],
        "snapshots": [line.directory / "snapshots"],
    }


async def test_no_plaintext_is_anywhere_between_the_edges(
    servers: Servers,
    encrypted: CommandLine,
    codec: Codec,
    own_worker: Started,
    reader: Reader,
    tmp_path: Path,
) -> None:
    secret, readable = f"secret-{uuid.uuid4().hex}", f"readable-{uuid.uuid4().hex}"
    data = {"said": secret, "more": [secret] * 20}
    spool = tmp_path / "spool"
    async with open_publisher(encrypted, codec) as publisher:
        first = await publisher.create_and_wait("s", "started", data, {"seen": readable}, timeout=PATIENCE)
        publisher.create("new", "started", data, {"seen": readable})
        publisher.import_checkpoints("s", await reader.session("s").export())
        publisher.rollback("s", "s:1")
        assert await publisher.flush(PATIENCE) == 0

    # What Kafka does not take stays on the disk, and the next publisher sends it.
    prefix = encrypted.settings["WAYPOST_TOPIC_PREFIX"]
    away = Publisher(NOWHERE, topic_prefix=prefix, codec=codec, spool=spool)
    async with away:
        await away.prepare("s")
        away.create("s", "spooled", data, {"seen": readable})
        await away.close(timeout=0)
    assert files_with(readable, spool)
    assert not files_with(secret, spool)
    async with open_publisher(encrypted, codec, spool=spool) as publisher:
        last = await publisher.create_and_wait("s", "done", data, timeout=PATIENCE)
    await reader.wait_for(last.token, PATIENCE)
    assert [each.data for each in await reader.session("s").get_all()] == [data] * 3
    assert first.body["checkpoint"]["data"].keys() == {"waypost.encrypted"}

    await run(encrypted, "session", "fork", "s:1", "forked")
    await run(encrypted, "session", "import", "imported", str(await exported(encrypted, tmp_path)))
    await run(encrypted, "snapshot", "create")
    for session in ("forked", "imported"):
        assert (await reader.session(session).get_all())[0].data == data

    places = await places_of(servers, encrypted)
    for name, paths in places.items():
        assert files_with(readable, *paths), f"the search finds nothing in {name}, so it shows nothing"
        assert not files_with(secret, *paths), name
    assert not files_with(secret, spool, tmp_path / "keys")
    logged = own_worker.stop()
    assert logged.out + logged.err
    assert secret not in logged.out + logged.err
    assert not any(secret.encode() in path.read_bytes() for path in logs_of(servers))


async def exported(line: CommandLine, directory: Path) -> Path:
    # An export is decrypted; this is the one file here that may hold what was said.
    path = directory / "elsewhere" / "export.json"
    path.parent.mkdir()
    done = await asyncio.to_thread(line.run, "session", "export", "s", "--to", str(path))
    assert done.code == 0, done
    return path


def logs_of(servers: Servers) -> Iterator[Path]:
    yield servers.kafka.log_path
    yield servers.postgres.log_path


async def test_plaintext_is_rejected_and_marked_sessions_stay_so(
    encrypted: CommandLine, own: CommandLine, publisher: Publisher
) -> None:
    async with open_publisher(own, None) as plain:
        with pytest.raises(InvalidCommandError, match="accepts only encrypted data") as raised:
            await plain.create_and_wait("s", "n", {"clear": 1}, timeout=PATIENCE)
        assert raised.value.code == "encryption-required"
    done = await asyncio.to_thread(encrypted.run, "session", "policy", "s", "--no-encrypted", "--yes")
    assert done.code == 2
    assert "stays so" in done.error
    await publisher.create_and_wait("s", "n", {"secret": 1}, timeout=PATIENCE)
    assert (await run(encrypted, "session", "policy", "s"))["encrypted"] is True


async def test_recovery_works_on_ciphertext(
    encrypted: CommandLine, own: CommandLine, publisher: Publisher, own_worker: Started
) -> None:
    for number in range(5):
        await publisher.create_and_wait(f"s-{number}", "n", {"secret": number}, timeout=PATIENCE)
    await publisher.close()
    own_worker.stop()
    # Without the keys.
    assert (await run(own, "verify"))["partitions"]
    await run(own, "replay", "--schema", "side")
    mine, other = [(await run(own, "verify", *schema))["partitions"] for schema in ((), ("--schema", "side"))]
    assert [each["fingerprint"] for each in mine] == [each["fingerprint"] for each in other]


TAMPERING: dict[str, tuple[str, str, type[EncryptionError]]] = {
    "swapped rows": (
        "update waypost.checkpoints as c set data = o.data from waypost.checkpoints as o "
        "where c.session_id = 's' and o.session_id = 's' and c.number + o.number = 3",
        "s",
        MovedDataError,
    ),
    "truncated ciphertext": (
        "update waypost.checkpoints set data = substr(data, 1, octet_length(data) - 7) || '\"}}'::bytea "
        "where session_id = 's' and number = 1",
        "s",
        UnauthenticDataError,
    ),
    "a moved checkpoint": (
        "update waypost.checkpoints as c set data = o.data, command_id = o.command_id from waypost.checkpoints as o "
        "where c.session_id = 't' and o.session_id = 's' and o.number = 1",
        "t",
        MovedDataError,
    ),
    "plaintext": (
        "update waypost.checkpoints set data = '{\"said\":\"forged\"}' where session_id = 's' and number = 2",
        "s",
        PlaintextError,
    ),
}


@pytest.mark.parametrize("case", TAMPERING)
async def test_tampering_with_rows_is_a_separate_error(
    encrypted: CommandLine, publisher: Publisher, reader: Reader, case: str
) -> None:
    sql, session, kind = TAMPERING[case]
    for each in ("s", "s", "t"):
        await publisher.create_and_wait(each, "n", {"secret": each}, timeout=PATIENCE)
    assert len(await reader.session(session).get_all()) > 0
    connection = await asyncpg.connect(encrypted.settings["WAYPOST_POSTGRES_DSN"])
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
    with pytest.raises(kind) as raised:
        await reader.session(session).get_all()
    assert type(raised.value) is kind
    with pytest.raises(kind):
        _ = [piece async for piece in reader.session(session).export_stream()]
    with pytest.raises(kind):
        await reader.session(session).get_summary()
    done = await asyncio.to_thread(encrypted.run, "session", "export", session)
    assert done.code == 1
    assert "Nothing was returned" in done.err
    assert "forged" not in done.out + done.err


async def test_a_reader_with_other_keys_gets_nothing(
    encrypted: CommandLine, publisher: Publisher, tmp_path: Path
) -> None:
    await publisher.create_and_wait("s", "n", {"secret": 1}, timeout=PATIENCE)
    other = await key_codec(tmp_path / "other")
    await other.prepare("s")
    async with Reader(encrypted.settings["WAYPOST_POSTGRES_DSN"], codec=other) as stranger:
        with pytest.raises(EncryptionError, match="does not hold the key"):
            await stranger.session("s").get_latest()
    async with Reader(encrypted.settings["WAYPOST_POSTGRES_DSN"]) as without:
        latest = await without.session("s").get_latest()
        assert latest is not None
        assert latest.data.keys() == {"waypost.encrypted"}


async def test_a_subscriber_decrypts_and_an_erased_session_does_not_stop_it(
    encrypted: CommandLine, publisher: Publisher, tmp_path: Path
) -> None:
    for session in ("kept", "erased", "kept"):
        await publisher.create_and_wait(session, "n", {"secret": session}, timeout=PATIENCE)
    await publisher.publish_and_wait("kept", "waypost.session.rollback", b'{"checkpoint_id":"kept:1"}')
    fresh = await key_codec(tmp_path)
    await fresh.store.erase("erased", datetime.now(UTC))
    events: list[Event] = []
    servers, prefix = (
        encrypted.settings["WAYPOST_BOOTSTRAP_SERVERS"],
        encrypted.settings["WAYPOST_TOPIC_PREFIX"],
    )
    subscriber = Subscriber(servers, topic_prefix=prefix, codec=fresh, from_beginning=True)
    async with asyncio.timeout(PATIENCE), subscriber:
        async for event in subscriber:
            if event.type.endswith(("created", "rolled_back")):
                events.append(event)
            if len(events) == 4:
                break
    by_session: dict[str | None, list[Event]] = {}
    for event in events:
        by_session.setdefault(event.session_id, []).append(event)
    assert [each.checkpoint and each.checkpoint.data for each in by_session["kept"]] == [
        {"secret": "kept"}
    ] * 3
    assert by_session["kept"][0].body["checkpoint"]["data"] == {"secret": "kept"}
    (gone,) = by_session["erased"]
    assert gone.token is not None
    assert gone.removed == []
    for look in (lambda: gone.checkpoint, lambda: gone.body):
        with pytest.raises(KeyErasedError):
            look()
    assert all(b"secret" not in event.raw_body for event in events)


async def test_a_handler_gets_decrypted_events_and_dead_letters_stay_encrypted(
    encrypted: CommandLine, publisher: Publisher, codec: Codec
) -> None:
    await publisher.create_and_wait("s", "n", {"secret": 1}, timeout=PATIENCE)
    servers, prefix = (
        encrypted.settings["WAYPOST_BOOTSTRAP_SERVERS"],
        encrypted.settings["WAYPOST_TOPIC_PREFIX"],
    )
    seen: list[Any] = []
    failed: list[Event] = []
    done = asyncio.Event()

    async def handle(event: Event) -> None:
        if event.checkpoint is not None:
            seen.append(event.checkpoint.data)
            raise RuntimeError("this handler fails")

    async def note(event: Event, _: Exception) -> None:
        failed.append(event)
        done.set()

    subscriber = Subscriber(servers, topic_prefix=prefix, codec=codec, from_beginning=True)
    async with subscriber:
        running = asyncio.create_task(subscriber.run(handle, retries=0, on_failure=note))
        await asyncio.wait_for(done.wait(), PATIENCE)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert seen == [{"secret": 1}]
    assert b"waypost.encrypted" in failed[0].raw_body


async def test_a_fork_keeps_the_key_of_its_origin_and_needs_the_keys(
    encrypted: CommandLine,
    own: CommandLine,
    publisher: Publisher,
    reader: Reader,
    codec: Codec,
    tmp_path: Path,
) -> None:
    for number in range(3):
        await publisher.create_and_wait("s", "n", {"secret": number}, timeout=PATIENCE)
    done = await asyncio.to_thread(own.run, "session", "fork", "s:2", "without")
    assert done.code == 1
    assert "is encrypted, and what is copied without its key can't be read" in done.error
    await run(encrypted, "session", "fork", "s:2", "fork")
    await publisher.create_and_wait("fork", "n", {"secret": "own"}, timeout=PATIENCE)
    assert [each.data for each in await reader.session("fork").get_all()] == [
        {"secret": 0},
        {"secret": 1},
        {"secret": "own"},
    ]
    rows = await run(encrypted, "session", "show", "fork:1")
    assert json.loads(json.dumps(rows))["data"] == {"secret": 0}
    await codec.store.erase("s", datetime.now(UTC))
    fresh = await key_codec(tmp_path)
    async with Reader(encrypted.settings["WAYPOST_POSTGRES_DSN"], codec=fresh) as later:
        with pytest.raises(KeyErasedError):
            await later.session("fork").get("fork:1")
        newest = await later.session("fork").get_latest()
        assert newest is not None
        assert newest.data == {"secret": "own"}
