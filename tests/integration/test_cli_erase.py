"""``waypost erase``: what goes, what stays, what is said of the rest, and what comes too late."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import asyncpg
from tests.support.cli import CommandLine, Outcome
from tests.support.deployment import deployment
from tests.support.worker_deployment import create, line, own, own_worker, session, shared

from waypost import __version__
from waypost.wire import decode
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers

__all__ = ["line", "own", "own_worker", "session", "shared"]
MARKER = "marker-of-a-secret"
TABLES = ("sessions", "checkpoints", "recent_commands", "rejected_commands", "outbox", "partitions")


def publish(line: CommandLine, session: str, kind: str, body: str, wait: bool = True) -> Outcome:
    waiting = ("--wait", "--timeout", "30") if wait else ()
    return line.run("publish", session, "--type", kind, "--body", body, *waiting, "-o", "json")


def secret(line: CommandLine, session: str, wait: bool = True) -> Outcome:
    return publish(line, session, "create", json.dumps({"name": "a", "data": {"text": MARKER}}), wait)


def erased(line: CommandLine, session: str, *arguments: str) -> Any:
    done = line.run("erase", session, "--yes", "-o", "json", *arguments)
    assert done.code == 0, done
    return done.json


def places(receipt: Any) -> dict[str, Any]:
    return {one["where"]: one for one in receipt["may_still_hold_bytes"]}


def found_in_postgres(line: CommandLine, text: str) -> list[str]:
    """The rows of all tables that hold a text, also as bytes."""

    async def look() -> list[str]:
        connection: Any = await asyncpg.connect(line.settings["WAYPOST_POSTGRES_DSN"])
        try:
            rows = [
                f"{table}: {row[0]}"
                for table in TABLES
                for row in await connection.fetch(f"select t::text from waypost.{table} t")
            ]
        finally:
            await connection.close()
        return [row for row in rows if text in row or text.encode().hex() in row]

    return asyncio.run(look())


def test_a_marker_is_nowhere_in_postgres_afterwards(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    assert publish(line, session, "pin", f'{{"checkpoint_id": "{session}:1"}}').code == 0
    create(line, session, "b")
    imported = {"id": "x", "name": MARKER, "timestamp": "2026-11-24T08:24:59Z", "data": {"text": MARKER}}
    assert publish(line, session, "import", json.dumps({"checkpoints": [imported]})).code == 0
    assert publish(line, session, "delete", f'{{"checkpoint_id": "{session}:2"}}').code == 0
    # A rejected command, and one in the wrong partition.
    assert publish(line, session, "pin", json.dumps({"checkpoint_id": MARKER})).code == 1
    misrouted(line, session)
    # Its result, with the data, waits in the outbox for the next batch.
    assert publish(line, session, "rollback", f'{{"checkpoint_id": "{session}:1"}}').code == 0
    assert len(found_in_postgres(line, MARKER)) >= 4

    receipt = erased(line, session)
    assert receipt["checkpoints_removed_now"] == 2
    assert found_in_postgres(line, MARKER) == []
    assert "outbox" not in places(receipt)
    (info,) = line.run("session", "list", "--prefix", session, "-o", "json").json
    assert (info["checkpoints"], info["policy"], info["kept"]) == (0, None, "erased")
    assert info["erased_at"].removesuffix("Z")[:26] == receipt["erased_at"].removesuffix("Z")[:26]
    shown = line.run("session", "show", session)
    assert (shown.code, "was erased at" in shown.err) == (0, True)


def misrouted(line: CommandLine, session: str) -> None:
    """A command with the marker in the partition where the session is not."""
    from aiokafka import AIOKafkaProducer

    from waypost.wire.envelope import command_headers

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=line.settings["WAYPOST_BOOTSTRAP_SERVERS"])
        await producer.start()
        try:
            headers = command_headers(
                "misrouted", b"/test", EventType.CREATE.wire, b"2026-11-24T08:24:59Z", None
            )
            await producer.send_and_wait(
                f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands",
                json.dumps({"name": "a", "data": {"text": MARKER}}).encode(),
                key=session.encode(),
                headers=headers,
                partition=1 - partition_of(session, 2),
            )
        finally:
            await producer.stop()

    asyncio.run(send())
    while not any(row["code"] == "misrouted" for row in rejected(line, session)):
        pass


def rejected(line: CommandLine, session: str) -> list[Any]:
    rows: list[Any] = line.run("rejected", "list", "--session", session, "-o", "jsonl").rows
    return rows


def test_what_comes_later_is_rejected_and_leaves_no_content(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    first = erased(line, session)
    late = secret(line, session)
    assert (late.code, late.json["code"]) == (1, "erased")
    assert publish(line, session, "create", "{", wait=False).code == 2  # not even sent
    assert line.run(
        "publish", session, "--type", "waypost.checkpoint.explode", "--body", f'"{MARKER}"'
    ).code in (0, 2)
    assert found_in_postgres(line, MARKER) == []
    assert {row["code"] for row in rejected(line, session)} == {"erased"}
    again = erased(line, session)
    assert (again["erased_at"], again["checkpoints_removed_now"]) == (first["erased_at"], 0)
    assert rejected(line, session) == []


def test_verify_and_replay_agree_before_and_after(own: CommandLine, own_worker: Any, session: str) -> None:
    for name in (session, f"{session}-other"):
        assert secret(own, name).code == 0
        assert publish(own, name, "pin", '{"checkpoint_id": "none"}').code == 1
    assert own.run("verify", "--strict", "-o", "json").json["equal"]
    erased(own, session)
    assert secret(own, session).code == 1
    found = own.run("verify", "--strict", "-o", "json")
    assert found.json["equal"], found
    assert own.run("replay", "--schema", "side", "-o", "json").code == 0
    assert own.run("verify", "--strict", "--schema", "side", "-o", "json").json["equal"]
    assert {row["code"] for row in rejected(own, f"{session}-other")} == {"unknown-checkpoint"}
    # The side schema was made from the log, so it has no more of the session than the tables have.
    receipt = erased(own, session)
    assert "schema side" not in places(receipt)


def test_a_copy_in_another_schema_and_older_snapshots_are_named(
    own: CommandLine, own_worker: Any, session: str
) -> None:
    assert secret(own, session).code == 0
    assert own.run("replay", "--schema", "side", "-o", "json").code == 0
    own.settings["WAYPOST_SNAPSHOTS"] = str(own.directory / "snapshots")  # type: ignore[index]
    before = own.run("snapshot", "create", "-o", "json").json["name"]
    receipt = erased(own, session)
    after = own.run("snapshot", "create", "-o", "json").json["name"]
    found = places(receipt)
    assert "schema side" in found
    assert f"snapshot {before}" in found
    again = places(erased(own, session))
    assert f"snapshot {before}" in again
    assert f"snapshot {after}" not in again


def test_a_database_that_is_restored_to_before_is_erased_again(
    servers: Servers, own: CommandLine, own_worker: Any, session: str
) -> None:
    assert secret(own, session).code == 0
    settings = {**own.settings, "WAYPOST_SNAPSHOTS": str(own.directory / "snapshots")}
    here = CommandLine(own.directory, settings)
    assert here.run("snapshot", "create").code == 0
    receipt = erased(here, session)
    own_worker.stop()
    name = f"restored_{own.settings['WAYPOST_TOPIC_PREFIX'][-12:]}"
    dsn = servers.postgres.create_database(name)
    restored = CommandLine(own.directory, {**settings, "WAYPOST_POSTGRES_DSN": dsn})
    try:
        assert restored.run("snapshot", "restore", "latest").code == 0
        assert found_in_postgres(restored, MARKER) != []
        worker = restored.start("worker")
        try:
            worker.until("worker_ready", 120)
            late = secret(restored, session)
            assert (late.code, late.json["code"]) == (1, "erased")
            assert found_in_postgres(restored, MARKER) == []
            assert erased(restored, session)["erased_at"] == receipt["erased_at"]
            assert restored.run("verify", "--strict", "-o", "json").json["equal"]
        finally:
            worker.end()
    finally:
        servers.postgres.drop_database(name)


def test_copies_and_forks_are_named(line: CommandLine, session: str) -> None:
    create(line, session, "a", "b")
    assert line.run("session", "copy", session, "--as", f"{session}-copy").code == 0
    assert line.run("session", "fork", f"{session}:1", f"{session}-fork").code == 0
    create(line, f"{session}0", "a")
    found = places(erased(line, session))
    named = {where for where in found if where.startswith("session ")}
    assert named == {f"session {session}-copy", f"session {session}-fork"}
    assert found[f"session {session}-copy"]["what"] == "2 checkpoints copied or forked from it"
    assert len(line.run("session", "show", f"{session}-copy", "-o", "json").json) == 2


def test_it_says_until_when_the_topics_hold_the_bytes(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    found = places(erased(line, session))
    prefix, partition = line.settings["WAYPOST_TOPIC_PREFIX"], partition_of(session, 2)
    commands, results = (found[f"{prefix}.{what}/{partition}"] for what in ("commands", "results"))
    assert commands["until"] is None
    assert "retention.ms=-1" in commands["remedy"]
    now = datetime.now(UTC)
    until = datetime.fromisoformat(results["until"])
    # Seven days of retention, and up to seven more until the segment is closed.
    assert now + timedelta(days=13) < until < now + timedelta(days=15)
    for one in (commands, results):
        assert now - timedelta(hours=1) < datetime.fromisoformat(one["since"]) < now


def test_a_plan_changes_nothing(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    receipt = line.directory / "receipt.json"
    plan = line.run("erase", session, "--dry-run", "--receipt", str(receipt), "-o", "json")
    assert plan.code == 0
    assert plan.json["would_remove"]["checkpoints"] == 1
    assert plan.json["would_remove"]["bytes"] > len(MARKER)
    assert plan.json["erased_at"] is None
    assert places(plan.json)
    assert not receipt.exists()
    assert len(line.run("session", "show", session, "-o", "json").json) == 1
    table = line.run("erase", session, "--dry-run")
    assert (table.code, "Bytes would still be here" in table.err) == (0, True)


def test_the_receipt_is_a_file(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    path = line.directory / "receipt.json"
    path.write_text("an earlier one")
    shown = erased(line, session, "--receipt", str(path))
    assert json.loads(path.read_text()) == shown
    assert (shown["format"], shown["version"], shown["session_id"]) == ("waypost-erasure", 1, session)
    assert shown["command"]["topic"] == f"{line.settings['WAYPOST_TOPIC_PREFIX']}.commands"
    assert [one.name for one in line.directory.iterdir()] == ["receipt.json"]
    table = line.run("erase", session, "--yes")
    assert (table.code, "erased at" in table.out, "Bytes may still be here" in table.err) == (0, True, True)


def test_a_receipt_that_cannot_be_written_is_reported_first(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    for path, problem in (
        (line.directory, "is a directory"),
        (line.directory / "no" / "r.json", "can't be written"),
    ):
        done = line.run("erase", session, "--yes", "--receipt", str(path))
        assert done.code == 2
        assert problem in done.error
        assert "Nothing was changed" in done.error
    assert len(line.run("session", "show", session, "-o", "json").json) == 1


def test_an_unknown_session_may_be_mistyped(line: CommandLine, session: str) -> None:
    for flags in ((), ("--dry-run",)):
        done = line.run("erase", session, "--yes", *flags)
        assert (done.code, f"no worker has applied a command of a session '{session}'" in done.error) == (
            1,
            True,
        )
    assert line.run("session", "show", session).code == 1
    assert erased(line, session, "--unknown")["checkpoints_removed_now"] == 0
    assert secret(line, session).code == 1
    assert line.run("erase", "a\nb", "--yes").code == 2


def test_all_sessions_of_a_prefix(line: CommandLine, session: str) -> None:
    names = [f"{session}/{name}" for name in ("a", "b/c", "d é")]
    for name in (*names, f"{session}-other"):
        assert secret(line, name).code == 0
    plan = line.run("erase", "--prefix", f"{session}/", "--dry-run", "-o", "jsonl")
    assert [(row["session_id"], row["checkpoints"], row["erased_at"]) for row in plan.rows] == [
        (name, 1, None) for name in names
    ]
    assert plan.err == "3 sessions would be erased\n"
    receipts = line.directory / "receipts"
    done = line.run("erase", "--prefix", f"{session}/", "--yes", "--receipt", str(receipts), "-o", "jsonl")
    assert (done.code, done.err) == (0, "3 sessions erased\n")
    assert [row["session_id"] for row in done.rows] == names
    written = [json.loads(one.read_text()) for one in receipts.iterdir()]
    assert sorted(written, key=lambda one: str(one["session_id"])) == done.rows
    again = line.run("erase", "--prefix", f"{session}/", "--yes", "-o", "json")
    assert [row["erased_at"] for row in again.json] == [row["erased_at"] for row in done.rows]
    assert len(line.run("session", "show", f"{session}-other", "-o", "json").json) == 1
    table = line.run("erase", "--tenant", session, "--yes")
    assert table.out.count("0 checkpoints removed") == 3
    other = line.run("erase", f"{session}-other", "--tenant", session, "--yes")
    assert (other.code, "does not belong to the tenant" in other.error) == (1, True)


def test_what_makes_no_sense_is_a_usage_error(line: CommandLine, session: str) -> None:
    for arguments, problem in (
        ((), "name one SESSION, or --prefix or --tenant for several"),
        ((session, "--prefix", "a"), "name one SESSION, or --prefix or --tenant for several"),
        (("--tenant", "acme", "--prefix", "other"), "no session of the tenant 'acme' begins with 'other'"),
        (("--prefix", "a", "--unknown"), "--unknown is for one SESSION"),
        (("--prefix", "a\nb"), "--prefix: the session id contains a control character"),
        (("a\nb",), "the session id contains a control character"),
        (("--prefix", "a", "--receipt", "/dev/null/r"), "can't be made a directory"),
    ):
        done = line.run("erase", *arguments, "--yes")
        assert (done.code, problem in done.error) == (2, True), done


def test_an_expiry_passes_over_it(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0
    erased(line, session)
    assert line.run("expire", "--idle", "0s", "--prefix", session, "-o", "json").json == []


def test_doctor_knows_tombstones(own: CommandLine, own_worker: Any, session: str) -> None:
    def finding() -> Any:
        rows = own.run("doctor", "-o", "jsonl").rows
        return [row for row in rows if row["subject"] == "erased sessions"]

    assert [one["message"] for one in finding()] == ["there are none"]
    assert secret(own, session).code == 0
    erased(own, session)
    (one,) = finding()
    assert one["level"] == "warning"
    assert f"the oldest byte is of '{session}'" in one["message"]
    assert one["message"].endswith("and nothing removes it")

    async def damage() -> None:
        connection: Any = await asyncpg.connect(own.settings["WAYPOST_POSTGRES_DSN"])
        await connection.execute("update waypost.sessions set checkpoints = 1")
        await connection.close()

    asyncio.run(damage())
    assert [(one["level"], "hold checkpoints or a policy again" in one["message"]) for one in finding()] == [
        ("warning", False),
        ("error", True),
    ]


async def test_a_worker_that_does_not_know_the_command_keeps_it_for_after_the_upgrade(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with deployment(servers.endpoints, database, topic_prefix, 1) as live:
        line = CommandLine(
            tmp_path,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": database,
                "WAYPOST_TOPIC_PREFIX": topic_prefix,
            },
        )
        await live.create("one", "a", step=1)
        live.own(0)
        await live.answered(1)
        with patch.dict(decode._PARSERS):
            del decode._PARSERS[EventType.ERASE]
            done = await asyncio.to_thread(line.run, "erase", "one", "--yes")
        assert (done.code, "the worker of partition 0 is of an earlier version" in done.error) == (1, True)
        done = await asyncio.to_thread(line.run, "erase", "one", "--yes", "-o", "json")
        assert done.json["checkpoints_removed_now"] == 1


def test_workers_of_another_version_are_not_asked(line: CommandLine, session: str) -> None:
    assert secret(line, session).code == 0

    async def versions(*_: Any) -> dict[str, int]:
        return {"0.0.9": 1, __version__: 1}

    with patch("waypost_worker.kafka.group_members.worker_versions", versions):
        done = line.run("erase", session, "--yes")
    assert (done.code, "workers of version 0.0.9 are running" in done.error) == (1, True)
    assert len(line.run("session", "show", session, "-o", "json").json) == 1
