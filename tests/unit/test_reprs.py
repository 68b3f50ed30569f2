"""What public objects look like in a log or a debugger: one short line, that shows what they are and no secret."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

import waypost
from waypost import (
    Checkpoint,
    CheckpointManager,
    CheckpointPage,
    Codec,
    CommandPosition,
    CommandResult,
    Deduplicator,
    DirectoryKeyStore,
    EnvironmentWrapper,
    Event,
    FileWrapper,
    PostgresKeyStore,
    Publisher,
    PublisherStats,
    Reader,
    RetentionPolicy,
    SessionInfo,
    SessionPage,
    StoredKey,
    Subscriber,
    SyncPublisher,
    TokenFile,
    Topics,
    WrappedKey,
)
from waypost.adapters import Backend
from waypost.adapters.agent_framework import WaypostCheckpointStorage
from waypost.adapters.langgraph import WaypostSaver
from waypost.adapters.openai_agents import WaypostSession

SERVERS: Final = "127.0.0.1:1"
SECRET: Final = "hidden"
DSN: Final = f"postgresql://app:{SECRET}@db:5432/agents"
AT: Final = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
COMMAND: Final = {"id": "c", "partition": 2, "offset": 7}
LONG: Final = Checkpoint("s:2", "report", AT, AT, b'{"text":"' + "ü".encode() * 500 + b'"}', pinned=True)
KAFKA: Final[Any] = {"security_protocol": "SASL_PLAINTEXT", "sasl_plain_password": SECRET}


def checkpoint(number: int = 1) -> Checkpoint:
    return Checkpoint(f"s:{number}", "task_done", AT, AT, b'{"step":1}')


def event(name: str | None) -> Event:
    return Event(
        "i", "waypost.checkpoint.created", "s", "s:1", name, AT, "t.results", 0, 5, None, b"s", (), b"x" * 999
    )


def info(session_id: str) -> SessionInfo:
    return SessionInfo(session_id, 0, 7, 5, {"max_checkpoints": 5}, AT, AT)


def seen() -> Deduplicator:
    deduplicator = Deduplicator(size=9)
    deduplicator.check_and_add(event(None))
    return deduplicator


def managed() -> CheckpointManager:
    manager = CheckpointManager("s")
    manager.create("n", {"secret": SECRET})
    return manager


BACKEND: Final = Backend(SERVERS, DSN, publisher_options={"kafka_options": KAFKA})
ON: Final = "on <Backend of 'waypost.commands' at 127.0.0.1:1: new or closed>"
CREATED: Final[Mapping[str, Any]] = {"command": COMMAND, "checkpoint": {"id": "s:1"}}
REJECTED: Final = {"command": COMMAND, "code": "conflict", "message": "number 3 is taken"}
STATS: Final = PublisherStats(3, 0, 2, 0, 0, 1, 90, 0, 0, True, 0.0, None, None)
SHOWN: Final[Mapping[str, Any]] = {
    "<Publisher of 'waypost.commands' at 127.0.0.1:1: new, 0 buffered>": Publisher(
        SERVERS, kafka_options=KAFKA
    ),
    "<Subscriber to 'waypost.results' at 127.0.0.1:1: new or closed>": Subscriber(
        SERVERS, kafka_options=KAFKA
    ),
    "<Subscriber to 'x.results' at 127.0.0.1:1, group 'g': new or closed>": Subscriber(
        SERVERS, group="g", topic_prefix="x"
    ),
    "<Reader of 'waypost' in Postgres at db:5432/agents>": Reader(DSN),
    "<Reader of 'side' in Postgres at db:5432/agents and 1 more>": Reader([DSN, DSN], schema="side"),
    "<SessionReader of 'run-1'>": Reader(DSN).session("run-1"),
    "<CheckpointManager of 's': 1 of 1 checkpoints kept>": managed(),
    "<Checkpoint 's:1' 'task_done' of 2026-11-24T12:30:00+00:00: {\"step\":1}>": checkpoint(),
    f"<Checkpoint 's:2' 'report' of 2026-11-24T12:30:00+00:00, pinned: {{\"text\":\"{'ü' * 25}… (1011 bytes)>": LONG,
    "<Event 'waypost.checkpoint.created' of s:1 'task_done' at t.results/0/5>": event("task_done"),
    "<Event 'waypost.checkpoint.created' of s:1 at t.results/0/5>": event(None),
    "<Deduplicator with 1 of 9 ids>": seen(),
    "<CommandResult 'waypost.checkpoint.created' of s:1 at 2/7>": CommandResult(
        "waypost.checkpoint.created", dict(CREATED)
    ),
    "<CommandResult 'waypost.command.rejected' of 'conflict': number 3 is taken at 2/7>": CommandResult(
        "waypost.command.rejected", REJECTED
    ),
    "CommandPosition(partition=2, offset=7)": CommandPosition(2, 7),
    "<SessionInfo of 'a': 5 of 7 checkpoints kept, last recorded at 2026-11-24T12:30:00+00:00>": info("a"),
    "<SessionPage of nothing, cursor None>": SessionPage([], None),
    "<SessionPage of 'a' and 'b', cursor 'b'>": SessionPage([info("a"), info("b")], "b"),
    "<CheckpointPage of 3 from 's:1' to 's:3', cursor '3'>": CheckpointPage(
        [checkpoint(1), checkpoint(2), checkpoint(3)], "3"
    ),
    "RetentionPolicy(max_checkpoints=100, compress_after=50, keep_recent=20, max_age=None, encrypted=False)": (
        RetentionPolicy()
    ),
    "<DirectoryKeyStore in /run/keys>": DirectoryKeyStore("/run/keys"),
    "<PostgresKeyStore: schema 'waypost_keys' of Postgres at db:5432/agents>": PostgresKeyStore(DSN),
    "FileWrapper('/run/wrapping.key')": FileWrapper("/run/wrapping.key"),
    "EnvironmentWrapper('WAYPOST_WRAPPING_KEY')": EnvironmentWrapper(),
    "WrappedKey(wrapping_key='a1')": WrappedKey("a1", SECRET.encode()),
    "<StoredKey 'k' of 's': wrapped with 'a1'>": StoredKey("s", "k", "a1", SECRET.encode(), AT),
    "<Codec with keys in the directory /run/keys>": Codec(
        DirectoryKeyStore("/run/keys"), FileWrapper("/run/wrapping.key")
    ),
    "Topics(prefix='waypost')": Topics(),
    "PublisherStats(accepted=3, delivered=2, buffered=1, buffered_bytes=90, connected=True)": STATS,
    "TokenFile('/run/secrets/token')": TokenFile(Path("/run/secrets/token")),
    "<Backend of 'waypost.commands' at 127.0.0.1:1: new or closed>": BACKEND,
    f"<WaypostSaver {ON}, keep=50>": WaypostSaver(BACKEND, keep=50),
    f"<WaypostSession 'user-7' {ON}, keep=None>": WaypostSession("user-7", BACKEND),
    f"<WaypostCheckpointStorage of 'agent-framework/run-7' {ON}, keep=100>": WaypostCheckpointStorage(
        BACKEND, "run-7"
    ),
}


@pytest.mark.parametrize(
    ("shown", "thing"), SHOWN.items(), ids=[type(thing).__name__ for thing in SHOWN.values()]
)
def test_a_public_object_shows_what_it_is(shown: str, thing: Any) -> None:
    assert repr(thing) == shown
    assert SECRET not in shown
    assert len(shown) < 160


def test_every_public_class_with_instances_is_looked_at() -> None:
    errors = {name for name in waypost.__all__ if name.endswith("Error")}
    types_of_dicts = {"CheckpointDict", "PublisherOptions", "Summary"}
    protocols = {"KeyStore", "KeyWrapper"}
    shown = {type(thing).__name__ for thing in SHOWN.values()} | {"SyncPublisher"}
    functions = {"continued_trace", "json_default", "tenant_of"}
    assert set(waypost.__all__) - errors - types_of_dicts - protocols - functions <= shown


async def test_a_publisher_shows_whether_it_is_open() -> None:
    async with Publisher(SERVERS) as publisher:
        publisher.create("s", "n", {})
        assert repr(publisher) == "<Publisher of 'waypost.commands' at 127.0.0.1:1: open, 1 buffered>"
        await publisher.close(0)
    assert repr(publisher) == "<Publisher of 'waypost.commands' at 127.0.0.1:1: closed, 1 buffered>"


def test_so_does_one_with_its_own_thread() -> None:
    with SyncPublisher(SERVERS, topic_prefix="x") as publisher:
        assert repr(publisher) == "<SyncPublisher of 'x.commands' at 127.0.0.1:1: open, 0 buffered>"


async def test_a_closed_reader_and_a_closed_backend_show_it() -> None:
    reader = Reader(DSN)
    await reader.close()
    assert repr(reader) == "<Reader of 'waypost' in Postgres at db:5432/agents: closed>"
    async with asyncio.timeout(60), Backend(SERVERS, DSN) as backend:
        assert repr(backend) == "<Backend of 'waypost.commands' at 127.0.0.1:1: open>"
