"""Commands that look after the servers, and what commands say when a server is away, wrong or not prepared."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from tests.support.cli import CommandLine

from waypost_worker.devserver import Servers


@pytest.fixture
def line(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": database,
            "WAYPOST_TOPIC_PREFIX": topic_prefix,
            "WAYPOST_GROUP_ID": topic_prefix,
            "WAYPOST_REQUEST_TIMEOUT": "2",
        },
    )


@pytest.fixture
def empty_database(servers: Servers) -> Iterator[str]:
    yield servers.postgres.create_database("test_empty")
    servers.postgres.drop_database("test_empty")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


# Topics.


def test_topics_are_made_once_and_checked(line: CommandLine, topic_prefix: str) -> None:
    before = line.run("topics", "check", "-o", "json")
    assert before.code == 1
    assert {row["fix"] for row in before.json if row["level"] == "error"} == {"run 'waypost topics create'"}
    made = line.run("topics", "create", "--partitions", "4", "-o", "json")
    assert (made.code, made.err) == (0, "")
    assert made.json == [
        {"topic": f"{topic_prefix}.commands", "partitions": 4, "state": "made"},
        {"topic": f"{topic_prefix}.results", "partitions": 4, "state": "made"},
    ]
    again = line.run("topics", "create", "-o", "jsonl")
    assert [(row["partitions"], row["state"]) for row in again.rows] == [(4, "kept"), (4, "kept")]
    other = line.run("topics", "create", "--partitions", "5")
    assert (other.code, other.out) == (1, "")
    assert "exists with 4 partitions, not 5" in other.error
    after = line.run("topics", "check")
    assert after.code == 0
    assert after.err.endswith("checks: all is well\n")


def test_retention_is_shown_in_days(line: CommandLine, topic_prefix: str) -> None:
    short = line.run("topics", "create", "--partitions", "1", "--results-retention-days", "0.5")
    assert short.code == 2
    made = line.run("topics", "create", "--partitions", "1", "--results-retention-days", "1.5")
    assert made.code == 0
    rows = line.run("topics", "check", "-o", "jsonl").rows
    messages = [row["message"] for row in rows if row["subject"] == f"{topic_prefix}.results"]
    assert "retention.ms=129600000" in messages
    updated = line.run("topics", "update", "-o", "json")
    assert (updated.code, updated.json) == (0, [])
    assert "0 settings were changed" in updated.err


# Schema.


def test_migrate_shows_then_does_then_has_nothing_to_do(line: CommandLine, empty_database: str) -> None:
    flag = ("--postgres-dsn", empty_database)
    planned = line.run("migrate", "--dry-run", *flag)
    assert planned.code == 0
    assert "pending, nothing was changed" in planned.err
    unprepared = line.run("session", "list", *flag)
    assert (unprepared.code, unprepared.out) == (1, "")
    assert unprepared.error.endswith("has no Waypost schema: run 'waypost migrate'")
    applied = line.run("migrate", "-o", "json", *flag)
    assert applied.code == 0
    assert applied.json[0]["number"] == 1
    assert line.run("migrate", "-o", "json", *flag).json == []
    assert line.run("session", "list", "-o", "json", *flag).json == []


def test_another_schema_is_a_separate_database(line: CommandLine) -> None:
    flag = ("--schema", "side")
    missing = line.run("session", "list", *flag)
    assert (missing.code, missing.out) == (1, "")
    assert "has no Waypost schema 'side'" in missing.error
    assert line.run("migrate", "-o", "json", *flag).json[0]["number"] == 1
    assert line.run("migrate", "-o", "json", *flag).json == []
    assert line.run("session", "list", "-o", "json", *flag).json == []
    assert line.run("rejected", "list", "-o", "json", *flag).json == []
    wrong = line.run("session", "list", "--schema", "Side; drop")
    assert (wrong.code, wrong.out) == (2, "")
    assert "--postgres-schema: the schema name" in wrong.error


# Doctor.


def test_doctor_finds_everything_well(line: CommandLine) -> None:
    assert line.run("topics", "create", "--partitions", "2").code == 0
    found = line.run("doctor", "-o", "json")
    by_subject = {row["subject"] for row in found.json}
    assert {"fencing", "postgres", "schema"} <= by_subject
    wrong = [row for row in found.json if row["level"] == "error"]
    # The shared test servers run without fsync, and that is what a doctor is for.
    assert {row["message"] for row in wrong} == {"fsync=off", "full_page_writes=off"}
    assert all(row["fix"] for row in wrong)
    assert found.code == 1


def test_doctor_says_what_is_missing(line: CommandLine, empty_database: str) -> None:
    found = line.run("doctor", "-o", "json", "--postgres-dsn", empty_database)
    assert found.code == 1
    fixes = {row["subject"]: row["fix"] for row in found.json if row["level"] == "error"}
    assert fixes["schema"] == "run 'waypost migrate'"
    assert "run 'waypost topics create'" in fixes.values()


def test_doctor_checks_one_server_when_the_other_is_unreachable(
    line: CommandLine, dead_port: int, database: str
) -> None:
    found = line.run("doctor", "-o", "json", "--bootstrap-servers", f"127.0.0.1:{dead_port}")
    assert found.code == 1
    (away,) = (row for row in found.json if row["subject"] == f"127.0.0.1:{dead_port}")
    assert "does not answer" in away["message"]
    assert ("ok", "schema", "up to date", "") in [
        (row["level"], row["subject"], row["message"], row["fix"]) for row in found.json
    ]
    found = line.run("doctor", "-o", "json", "--postgres-dsn", f"postgresql://u:hush@127.0.0.1:{dead_port}/x")
    assert found.code == 1
    assert "Connection refused" in found.json[-1]["message"]
    assert "hush" not in found.out
    assert "fencing" in {row["subject"] for row in found.json}


# Servers that are away.

KAFKA_COMMANDS = [
    ["topics", "check"],
    ["topics", "create"],
    ["publish", "s", "n"],
    ["publish", "s", "n", "--wait"],
    ["tail"],
    ["defaults", "--max-checkpoints", "5", "--yes"],
    ["session", "rollback", "s:1"],
]
POSTGRES_COMMANDS = [
    ["session", "list"],
    ["session", "show", "s"],
    ["session", "export", "s"],
    ["session", "rollback", "s:1", "--discard-later"],
    ["rejected", "list"],
    ["migrate"],
]


@pytest.mark.parametrize("command", KAFKA_COMMANDS, ids=" ".join)
def test_unreachable_kafka_is_one_line(line: CommandLine, dead_port: int, command: list[str]) -> None:
    ended = line.run(*command, "--bootstrap-servers", f"127.0.0.1:{dead_port}")
    assert (ended.code, ended.out) == (1, "")
    assert f"Kafka at 127.0.0.1:{dead_port} does not answer" in ended.error


@pytest.mark.parametrize("command", POSTGRES_COMMANDS, ids=" ".join)
def test_unreachable_postgres_is_one_line(line: CommandLine, dead_port: int, command: list[str]) -> None:
    ended = line.run(*command, "--postgres-dsn", f"postgresql://u:hush@127.0.0.1:{dead_port}/x")
    assert (ended.code, ended.out) == (1, "")
    assert "can't be reached: Connection refused" in ended.error
    assert "hush" not in ended.error


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
async def test_a_time_limit_of_postgres_is_named(line: CommandLine, database: str, limit: str) -> None:
    blocker = await asyncpg.connect(database)
    try:
        async with blocker.transaction():
            await blocker.execute("lock table waypost.sessions in access exclusive mode")
            outcome = await asyncio.to_thread(
                line.run, "session", "list", "--postgres-dsn", f"{database}?{limit}=200"
            )
    finally:
        await blocker.close()
    assert outcome.code == 1
    assert "can't be reached" not in outcome.err
    assert "canceled a statement that took too long: " in outcome.err
    assert f"Raise {limit} for the role" in outcome.err


def test_a_database_whose_host_has_no_address_is_reported(line: CommandLine) -> None:
    ended = line.run("migrate", "--postgres-dsn", "postgresql://nowhere.invalid/waypost")
    assert ended.code == 1
    assert "its host name can't be looked up: " in ended.error


def test_a_missing_directory_of_snapshots_is_reported(line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = line.run("snapshot", "list", "--at", str(tmp_path / "empty"))
    assert empty.err == f"{tmp_path}/empty holds no snapshots\n"
    missing = line.run("snapshot", "list", "--at", str(tmp_path / "missing"))
    assert missing.err == f"{tmp_path}/missing holds no snapshots: there is no such directory\n"


def test_a_server_that_never_answers_is_given_up(line: CommandLine, silent_port: int) -> None:
    line = replace(line, settings={**line.settings, "WAYPOST_REQUEST_TIMEOUT": "1"})
    kafka = line.run("tail", "--bootstrap-servers", f"127.0.0.1:{silent_port}")
    assert kafka.code == 1
    assert "does not answer" in kafka.error
    postgres = line.run("session", "list", "--postgres-dsn", f"postgresql://u@127.0.0.1:{silent_port}/x")
    assert postgres.code == 1
    assert f"No connection to Postgres at 127.0.0.1:{silent_port}/x within 1 s" in postgres.error


@pytest.mark.parametrize(
    "command", [["tail"], ["publish", "s", "n"], ["defaults", "--keep-recent", "5", "--yes"]], ids=" ".join
)
def test_missing_topics_are_reported(line: CommandLine, topic_prefix: str, command: list[str]) -> None:
    ended = line.run(*command)
    assert (ended.code, ended.out) == (1, "")
    assert f"the topic '{topic_prefix}.commands' does not exist" in ended.error
    assert "waypost topics create" in ended.error


def test_a_wrong_password_is_one_line(line: CommandLine, database: str) -> None:
    wrong = database.replace("postgres:", "postgres:not-", 1) if "://postgres:" in database else database
    ended = line.run("session", "list", "--postgres-dsn", wrong)
    assert (ended.code, ended.out) == (1, "")
    assert "password authentication failed" in ended.error


def test_a_database_of_another_topic_is_found_out(line: CommandLine) -> None:
    assert line.run("topics", "create", "--partitions", "2").code == 0
    worker = line.start("worker")
    try:
        worker.until("worker_ready")
        assert line.run("publish", "s", "n", "--wait", "--timeout", "30").code == 0
        worker.stop()
    finally:
        worker.end()
    other = {**line.settings, "WAYPOST_TOPIC_PREFIX": f"{line.settings['WAYPOST_TOPIC_PREFIX']}-other"}
    elsewhere = CommandLine(line.directory, other)
    assert elsewhere.run("topics", "create", "--partitions", "3").code == 0
    rows = elsewhere.run("doctor", "-o", "json").json
    assert "the database was used with 2 partitions, the topic has 3" in [row["message"] for row in rows]
