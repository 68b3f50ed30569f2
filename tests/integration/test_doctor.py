"""``waypost doctor`` on servers, brokers and roles with something wrong: each is found, with a fix."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from tests.support.cli import CommandLine
from tests.support.secure_kafka import SecureKafka
from tests.support.timeouts import PATIENCE

from waypost import Topics, __version__
from waypost_worker.cli.doctor import transactions
from waypost_worker.config.settings import Settings
from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.devserver.jars import ROOTS
from waypost_worker.kafka.broker_clock import ClockReading, broker_clock
from waypost_worker.kafka.broker_versions import BrokerVersion, broker_versions, release
from waypost_worker.kafka.connection import Connection
from waypost_worker.kafka.group_members import worker_versions
from waypost_worker.kafka.membership import Membership
from waypost_worker.kafka.topics import (
    Finding,
    _check_authorizer,
    _check_group,
    _check_transactions,
    check_topics,
    create_topics,
)
from waypost_worker.operations.checks import broker_findings, clock_finding, worker_findings


@pytest.fixture
def line(servers: Servers, database: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    made = create_topics(Connection(servers.endpoints.bootstrap_servers), Topics(topic_prefix), 1)
    asyncio.run(made)
    settings = {
        "WAYPOST_BOOTSTRAP_SERVERS": servers.endpoints.bootstrap_servers,
        "WAYPOST_POSTGRES_DSN": database,
        "WAYPOST_TOPIC_PREFIX": topic_prefix,
    }
    return CommandLine(tmp_path, settings)


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(
        tmp_path / "postgres",
        settings={
            "autovacuum": "off",
            "statement_timeout": "2s",
            "transaction_timeout": "3s",
            "max_connections": "10",
            "cluster_name": "",
        },
    )
    postgres.start()
    yield postgres
    postgres.stop()


def execute(dsn: str, *statements: str) -> None:
    async def run() -> None:
        connection: Any = await asyncpg.connect(dsn)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


def findings(line: CommandLine, *flags: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = line.run("doctor", "-o", "json", *flags).json
    return rows


def said(rows: list[dict[str, str]], level: str, subject: str = "") -> list[str]:
    return [
        f"{row['message']} -> {row['fix']}"
        for row in rows
        if row["level"] == level and row["subject"].startswith(subject)
    ]


def test_versions_clocks_group_limits_and_tables_are_among_the_checks(line: CommandLine) -> None:
    rows = findings(line)
    well = {row["subject"]: row["message"] for row in rows if row["level"] == "ok"}
    assert well["versions"].startswith("waypost ")
    assert "with all rights that a worker needs" in well["tables"]
    messages = [row["message"] for row in rows if row["level"] == "ok"]
    assert "accepts a session timeout of 10 s" in messages
    assert "transaction.max.timeout.ms=60000" in messages
    assert "has no authorizer, and can be reached only from its own machine (127.0.0.1)" in messages
    assert sum("its clock is 0." in message for message in messages) == 2
    # The embedded server's one role is a superuser, and it says that it is a dev server.
    assert "role 'postgres' is the superuser of a dev server" in messages
    assert said(rows, "warning") == []


def test_a_session_timeout_that_brokers_refuse_is_an_error() -> None:
    limits = {"group.min.session.timeout.ms": "6000", "group.max.session.timeout.ms": "1800000"}
    found = _check_group("broker 1", limits, 5)
    assert (found.level, found.message) == (
        "error",
        "refuses a session timeout of 5 s: it takes 6 to 1800",
    )
    assert _check_group("broker 1", limits, 6).level == "ok"


@pytest.mark.parametrize(
    ("setting", "level", "expected"),
    [
        ("60000", "ok", "transaction.max.timeout.ms=60000"),
        ("900000", "warning", "holds back all commands behind it in the partition for up to 900 s"),
    ],
)
def test_transactions_that_may_stay_open_for_long_are_a_warning(
    setting: str, level: str, expected: str
) -> None:
    found = _check_transactions("broker 1", {"transaction.max.timeout.ms": setting})
    assert (found.level, bool(found.fix)) == (level, level != "ok")
    assert expected in found.message


@pytest.mark.parametrize(
    ("authorizer", "host", "level", "expected"),
    [
        ("org.apache.kafka.metadata.authorizer.StandardAuthorizer", "kafka-1", "ok", "ACLs are enforced"),
        ("", "kafka-1", "warning", "anyone who can reach it can write to the topics and delete them"),
        ("", "10.0.0.7", "warning", "has no authorizer"),
        ("", "127.0.0.1", "ok", "reached only from its own machine"),
        ("", "::1", "ok", "reached only from its own machine"),
        ("", "localhost", "ok", "reached only from its own machine"),
    ],
)
def test_brokers_without_acls_are_a_warning_unless_nobody_else_reaches_them(
    authorizer: str, host: str, level: str, expected: str
) -> None:
    found = _check_authorizer("broker 1", {"authorizer.class.name": authorizer}, host)
    assert (found.level, bool(found.fix)) == (level, level != "ok")
    assert expected in found.message


async def test_enforced_acls_are_reported(secure_kafka: SecureKafka, topic_prefix: str) -> None:
    connection = Connection(secure_kafka.kafka.bootstrap_servers)
    topics = Topics(topic_prefix)
    await create_topics(connection, topics, 1)
    found: list[Finding] = await check_topics(connection, topics)
    said = [one.message for one in found if one.subject == "broker 1"]
    assert any("ACLs are enforced (authorizer.class.name=" in message for message in said)


def test_settings_of_the_server_that_hurt_are_found(
    line: CommandLine, own_postgres: EmbeddedPostgres
) -> None:
    dsn = own_postgres.dsn
    assert line.run("migrate", "--postgres-dsn", dsn).code == 0
    execute(dsn, "alter table waypost.checkpoints set (autovacuum_enabled = off)")
    rows = findings(
        CommandLine(line.directory, {**line.settings, "WAYPOST_POSTGRES_POOL_SIZE": "40"}),
        "--postgres-dsn",
        dsn,
    )
    errors, warnings = "\n".join(said(rows, "error")), "\n".join(said(rows, "warning"))
    assert "autovacuum=off -> set autovacuum=on" in errors
    assert "a worker may open 40 connections, the server takes 7" in errors
    assert "statement_timeout=2000 ms ends statements that a worker still waits for" in warnings
    assert "transaction_timeout=3000 ms ends statements that a worker still waits for" in warnings
    assert "role 'postgres' is a superuser: a worker needs far less" in warnings
    assert (
        "any agent may change the retention of all sessions in 1 of 1 partitions -> name an authority"
        in warnings
    )
    assert "alter table waypost.checkpoints reset (autovacuum_enabled)" in warnings


def test_sessions_that_are_idle_for_months_are_a_warning_once_they_are_many(
    line: CommandLine, database: str
) -> None:
    execute(
        database,
        "insert into waypost.sessions "
        "(session_id, partition, counter, checkpoints, first_recorded_at, last_recorded_at) "
        "select 's' || n, 0, 1, 1, now(), now() - case when n <= 999 then 91 else 89 end * interval '1 day' "
        "from generate_series(1, 1002) as n",
        "insert into waypost.checkpoints "
        "(session_id, number, name, taken_at, recorded_at, data, metadata, pinned, position) "
        "select 's' || n, 1, 'n', now(), now(), '{}', '{}', n = 999, n from generate_series(1, 1002) as n",
    )
    (told,) = said(findings(line), "ok", "sessions")
    assert told.startswith("998 hold checkpoints and had no command for 90 days")
    execute(database, "update waypost.sessions set last_recorded_at = now() - interval '100 days'")
    (warned,) = said(findings(line), "warning", "sessions")
    assert "1,000 or more hold checkpoints" in warned
    assert "'waypost expire --idle 90d --dry-run' lists them" in warned


def test_a_role_without_the_rights_of_a_worker_is_found(line: CommandLine, database: str) -> None:
    execute(
        database,
        "drop role if exists half",
        "create role half login password 'hush'",
        "grant usage on schema waypost to half",
        "grant select on all tables in schema waypost to half",
        "grant insert on waypost.checkpoints to half",
    )
    try:
        execute(database, "alter role half set default_transaction_read_only = on")
        rows = findings(line, "--postgres-dsn", _as(database, "half", "hush"))
        errors = said(rows, "error", "table")
        assert (
            "the role lacks UPDATE, DELETE -> "
            "grant update, delete on waypost.checkpoints to the workers' role" in errors
        )
        assert not any("migrations" in error for error in errors)
        assert any("transactions are read-only" in error for error in said(rows, "error", "postgres"))
        assert "hush" not in str(rows)
    finally:
        execute(database, "drop owned by half", "drop role half")


def _as(dsn: str, user: str, password: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{place}"))


async def test_brokers_tell_their_release_and_the_group_its_workers(
    servers: Servers, line: CommandLine, topic_prefix: str
) -> None:
    connection = Connection(servers.endpoints.bootstrap_servers)
    (broker,) = await broker_versions(connection)
    (kafka,) = (root.rpartition(":")[2] for root in ROOTS if ":kafka_" in root)
    assert broker.newest is not None
    assert release(broker.newest) == kafka.rpartition(".")[0]
    assert (broker.in_force, broker.recovers) == (broker.newest, True)
    assert not await worker_versions(connection, topic_prefix)
    member = Membership(connection, Topics(topic_prefix).commands, topic_prefix, session_timeout=6)
    await member.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while member.rebalancing:
                await member.changed()
        assert await worker_versions(connection, topic_prefix) == {__version__: 1}
        grouped = replace(line, settings={**line.settings, "WAYPOST_GROUP_ID": topic_prefix})
        rows = await asyncio.to_thread(findings, grouped)
        assert f"Kafka {release(broker.newest)}, with its features enabled" in said(rows, "ok", "brokers")[0]
        assert f"1 of version {__version__}" in said(rows, "ok", "workers")[0]
    finally:
        await member.leave()


@pytest.mark.parametrize(
    ("brokers", "level", "expected"),
    [
        ([BrokerVersion(1, None, None, False)], "error", "older than Kafka 2.5"),
        ([BrokerVersion(1, None, None, True)], "ok", "Kafka 2.5 or newer, without metadata.version"),
        ([BrokerVersion(1, 30, 30, True), BrokerVersion(2, 29, 29, True)], "warning", "4.2 and 4.3"),
        (
            [BrokerVersion(1, 30, 21, True)],
            "warning",
            "the brokers are of Kafka 4.3, the cluster acts as 3.9",
        ),
        ([BrokerVersion(1, 29, 28, True)], "ok", "all of Kafka 4.2"),
        ([BrokerVersion(1, 99, 99, True)], "ok", "4.4 or newer"),
    ],
)
def test_releases_of_brokers(brokers: list[BrokerVersion], level: str, expected: str) -> None:
    found = broker_findings(brokers)
    assert max((one.level for one in found), key=("ok", "warning", "error").index) == level
    (worst,) = [one for one in found if expected in one.message][-1:]
    assert (worst.level, bool(worst.fix)) == (level, level != "ok")


@pytest.mark.parametrize(
    ("versions", "level", "expected"),
    [
        ({__version__: 3}, "ok", f"3 of version {__version__}"),
        ({"unknown": 1}, "ok", "1 of version unknown"),
        ({__version__: 2, "99.0": 1}, "warning", f"2 of version {__version__}, 1 of version 99.0"),
        ({"99.0": 1}, "warning", f"this is {__version__}"),
    ],
)
def test_versions_of_workers(versions: dict[str, int], level: str, expected: str) -> None:
    (found,) = worker_findings(Counter(versions), "waypost")
    assert (found.level, bool(found.fix)) == (level, level != "ok")
    assert expected in found.message


@pytest.mark.parametrize(
    ("waiting", "level", "expected"),
    [
        (0, "ok", "no worker is running in the group 'waypost', and no command waits"),
        (1, "error", "no worker is running in the group 'waypost', and 1 command waits"),
        (1234, "error", "no worker is running in the group 'waypost', and 1,234 commands wait"),
        (None, "warning", "the number of waiting commands is unknown"),
    ],
)
def test_without_workers_it_counts_what_waits(waiting: int | None, level: str, expected: str) -> None:
    (found,) = worker_findings(Counter(), "waypost", waiting)
    assert (found.level, bool(found.fix)) == (level, level != "ok")
    assert expected in found.message


async def test_no_worker_runs_and_commands_wait(line: CommandLine, topic_prefix: str) -> None:
    grouped = replace(line, settings={**line.settings, "WAYPOST_GROUP_ID": topic_prefix})
    rows = await asyncio.to_thread(findings, grouped)
    assert said(rows, "ok", "workers") == [
        f"no worker is running in the group {topic_prefix!r}, and no command waits -> "
    ]
    for number in range(17):
        assert (await asyncio.to_thread(line.run, "publish", f"s-{number}", "n", "--data", "{}")).code == 0
    rows = await asyncio.to_thread(findings, grouped)
    assert said(rows, "error", "workers") == [
        f"no worker is running in the group {topic_prefix!r}, and 17 commands wait -> start one with 'waypost worker'"
    ]


async def test_a_transaction_that_stays_open_is_a_finding(
    servers: Servers, line: CommandLine, topic_prefix: str
) -> None:
    topic = Topics(topic_prefix).commands
    producer = AIOKafkaProducer(
        bootstrap_servers=servers.endpoints.bootstrap_servers, transactional_id=f"{topic_prefix}-agent"
    )
    async with producer:
        await producer.begin_transaction()
        begun = await producer.send_and_wait(topic, b"{}", partition=0)
        assert (await asyncio.to_thread(line.run, "publish", "s", "n", "--data", "{}")).code == 0
        rows = await asyncio.to_thread(findings, line)
        (found,) = said(rows, "warning", f"{topic}/0")
        assert re.match(
            f"a client's transaction at offset {begun.offset} has been open for at least [5-9] s, and 2 records "
            "from there on wait for its end -> find the client with 'kafka-transactions.sh describe-producers'",
            found,
        )
        assert not said(rows, "ok", "transactions")
        await producer.abort_transaction()
        rows = await asyncio.to_thread(findings, line)
        assert said(rows, "ok", "transactions") == [f"no client's transaction is open on {topic} -> "]


async def test_transactions_that_end_in_time_are_not_reported(
    servers: Servers, line: CommandLine, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction ends during the look, and the next one begins: the partition is held back at each look."""
    topic = Topics(topic_prefix).commands
    producer = AIOKafkaProducer(
        bootstrap_servers=servers.endpoints.bootstrap_servers, transactional_id=f"{topic_prefix}-agent"
    )
    settings = Settings(
        bootstrap_servers=servers.endpoints.bootstrap_servers,
        postgres_dsn=line.settings["WAYPOST_POSTGRES_DSN"],
        topic_prefix=topic_prefix,
    )
    progress, looks = transactions._progress, 0

    async def looked(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks > 1:
            await producer.commit_transaction()
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"{}", partition=0)
        found = await progress(*arguments)
        assert found[0].held_back
        return found

    monkeypatch.setattr(transactions, "_progress", looked)
    async with producer:
        (found,) = await transactions.check_transactions(settings)
        await producer.abort_transaction()
    assert (found.level, looks > 2) == ("ok", True)
    assert found.message == f"no client's transaction on {topic} stayed open for 5 s"


async def test_the_brokers_clock_is_this_machines(servers: Servers, topic_prefix: str) -> None:
    connection = Connection(servers.endpoints.bootstrap_servers)
    began = time.monotonic()
    read = await broker_clock(connection, Topics(topic_prefix))
    assert abs(read.ahead) <= read.within + 0.002
    assert 0 < read.within <= time.monotonic() - began


@pytest.mark.parametrize(
    ("ahead", "within", "level"),
    [(0.2, 0.01, "ok"), (-0.9, 0.0, "ok"), (1.5, 1.0, "ok"), (1.5, 0.1, "warning"), (-30, 0.1, "warning")],
)
def test_a_clock_that_is_surely_off_by_a_second_is_a_warning(ahead: float, within: float, level: str) -> None:
    found = clock_finding("kafka", ClockReading(ahead, within))
    assert found.level == level
    assert ("ahead of" if ahead > 0 else "behind") in found.message
    assert bool(found.fix) == (level == "warning")
