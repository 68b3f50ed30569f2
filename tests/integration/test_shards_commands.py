"""Commands over two databases: migrate, doctor, sessions, rejected, replay, verify, snapshots, adopt."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from tests.support.cli import CommandLine
from tests.support.deployment import Deployment, deployment
from tests.support.recovery import published, run, worked
from tests.support.servers import TEMPLATE
from tests.support.sharded import noted, rows, state

from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.postgres.migrate import migrate_dsn

PARTITIONS = 3


@pytest.fixture
async def here(servers: Servers, sharded: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, sharded, topic_prefix, PARTITIONS) as made:
        yield made


@pytest.fixture
def line(servers: Servers, sharded: str, topic_prefix: str, tmp_path: Path) -> CommandLine:
    return CommandLine(
        tmp_path,
        {
            "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
            "WAYPOST_POSTGRES_DSN": sharded,
            "WAYPOST_TOPIC_PREFIX": topic_prefix,
            "WAYPOST_REQUEST_TIMEOUT": "5",
            "WAYPOST_SNAPSHOTS": str(tmp_path / "snapshots"),
        },
    )


@pytest.fixture
def empty(servers: Servers, second_postgres: EmbeddedPostgres) -> Iterator[list[str]]:
    """Two databases without anything in them."""
    made = [servers.postgres.create_database("empty_0"), second_postgres.create_database("empty_1")]
    yield made
    servers.postgres.drop_database("empty_0")
    second_postgres.drop_database("empty_1")


def on(line: CommandLine, dsns: list[str]) -> CommandLine:
    return CommandLine(line.directory, {**line.settings, "WAYPOST_POSTGRES_DSN": "\n".join(dsns)})


async def contents(dsns: list[str]) -> list[dict[str, list[str]]]:
    """What commands make, without what only says where and when it was noted, and how often it was acquired."""
    found = await state(dsns)
    return [
        {name: kept for name, kept in one.items() if name not in ("shard", "partitions")} for one in found
    ]


async def test_migrate_makes_all_of_a_new_set_and_notes_its_places(
    line: CommandLine, empty: list[str]
) -> None:
    new = on(line, empty)
    dry = await run(new, "migrate", "--dry-run", "-o", "json")
    assert {(row["shard"], row["number"]) for row in dry.json} >= {(0, 1), (0, 3), (1, 1), (1, 3)}
    assert await state(empty) == [{}, {}]
    done = await run(new, "migrate", "-o", "json")
    assert (done.code, done.json) == (0, dry.json)
    assert [[row.split(",")[1] for row in one["shard"]] for one in await state(empty)] == [["0"], ["1"]]
    again = await run(new, "migrate", "-o", "json")
    assert (again.code, again.json) == (0, [])
    other = await run(on(line, empty[::-1]), "migrate")
    assert (other.code, other.out) == (1, "")
    assert "the list is in a different order" in other.error
    roles = await run(new, "migrate", "--roles")
    assert "create role" in roles.out
    assert "run it in each of the 2 databases" in roles.err


async def test_no_command_works_on_a_changed_map(here: Deployment, line: CommandLine) -> None:
    await worked(here, count=60)
    dsns = here.dsn.split()
    before = await state(dsns)
    other = on(line, dsns[::-1])
    for code, *command in (
        (1, "migrate"),
        (1, "session", "list"),
        (1, "session", "show", "session-1"),
        (1, "rejected", "list"),
        (1, "rejected", "purge", "--all", "--yes"),
        (1, "replay", "--onto-backup"),
        (2, "verify"),
        (1, "snapshot", "create"),
        (1, "snapshot", "restore", "--offline"),
    ):
        ended = await run(other, *command)
        if command[:2] == ["snapshot", "restore"]:
            assert ended.code == 1  # there is none: create was refused
            continue
        assert (ended.code, ended.out) == (code, ""), command
        assert "the list is in a different order" in ended.err.splitlines()[-1], command
    checks = await run(other, "doctor", "-o", "json")
    assert checks.code == 1
    assert [row["level"] for row in checks.json if row["subject"] == "shards"] == ["error"]
    assert await state(dsns) == before


async def test_doctor_looks_at_every_database(here: Deployment, line: CommandLine) -> None:
    await worked(here, count=60)
    found = await run(line, "doctor", "-o", "json")
    # The servers of a test run are told not to sync.
    errors = [row["message"] for row in found.json if row["level"] == "error"]
    assert sorted(errors) == ["fsync=off"] * 2 + ["full_page_writes=off"] * 2
    subjects = {row["subject"] for row in found.json}
    assert {"shard 0: postgres", "shard 1: postgres", "shard 0: tables", "shard 1: tables"} <= subjects
    assert [row["message"] for row in found.json if row["subject"] == "shards"] == [
        "2 databases, each in its place"
    ]
    first = here.dsn.split()[0]
    away = await run(on(line, [first, "postgresql://127.0.0.1:1/x"]), "doctor", "-o", "json")
    assert away.code == 1
    (error,) = [row for row in away.json if row["level"] == "error" and "=off" not in row["message"]]
    assert error["subject"] == "shard 1: postgres"
    assert "can't be reached" in error["message"]


async def test_sessions_and_rejected_commands_of_both_are_listed_retried_and_purged(
    here: Deployment, line: CommandLine
) -> None:
    owners = [here.own(partition) for partition in range(PARTITIONS)]
    for partition in range(PARTITIONS):
        session = here.sessions(partition)[0]
        await here.create(session)
        await here.send(b"no JSON", session.encode())
    # Misrouted over the border of the databases: it belongs to partition 1, and was sent to 0.
    wandering = here.sessions(1)[1]
    await here.send(orjson.dumps({"name": "n", "data": {}}), wandering.encode(), partition=0)
    await here.answered(7)
    sessions = await run(line, "session", "list", "-o", "json")
    assert [row["session_id"] for row in sessions.json] == sorted(
        here.sessions(partition)[0] for partition in range(PARTITIONS)
    )
    exported = await run(line, "session", "export", "--all")
    assert len(exported.rows) == PARTITIONS
    refused = (await run(line, "rejected", "list", "-o", "json")).json
    assert {row["partition"] for row in refused} == {0, 1, 2}
    assert [row["recorded_at"] for row in refused] == sorted(
        (row["recorded_at"] for row in refused), reverse=True
    )
    assert (await run(line, "rejected", "list", "--limit", "2", "-o", "json")).json == refused[:2]
    for row in refused:
        shown = (await run(line, "rejected", "show", row["place"], "-o", "json")).json
        assert shown["code"] == row["code"]
    retried = await run(line, "rejected", "retry", "--code", "misrouted", "--yes", "-o", "json")
    assert (retried.code, retried.json[0]["outcome"]) == (0, "accepted"), retried.err
    assert retried.json[0]["new_place"].startswith("1/")
    dry = await run(line, "rejected", "purge", "--all", "--dry-run", "-o", "json")
    assert [(row["code"], row["commands"]) for row in dry.json] == [("invalid-body", 3)]
    gone = await run(line, "rejected", "purge", "--all", "--yes", "-o", "json")
    assert gone.json == {"dropped": 3}
    for owner in owners:
        await owner.stop()


async def test_a_replay_fills_two_empty_databases_and_verify_proves_it(
    here: Deployment, line: CommandLine, empty: list[str]
) -> None:
    await worked(here, count=600)
    new = on(line, empty)
    plan = await run(new, "replay", "--dry-run", "-o", "json")
    assert (plan.code, len(plan.json)) == (0, PARTITIONS)
    assert await state(empty) == [{}, {}]
    done = await run(new, "replay", "--processes", "2", "-o", "json")
    assert done.code == 0, done.err
    assert await contents(empty) == await contents(here.dsn.split())
    assert (await run(new, "verify", "-o", "json")).json["equal"] is True
    mine = (await run(line, "verify", "-o", "json")).json["partitions"]
    other = (await run(new, "verify", "-o", "json")).json["partitions"]
    assert [row["fingerprint"] for row in mine] == [row["fingerprint"] for row in other]
    # From two databases into one: that is how a map is changed.
    one = empty[0]
    await rows(one, "drop schema waypost cascade")
    assert (await run(on(line, [one]), "replay")).code == 0
    assert (await run(on(line, [one]), "verify", "-o", "json")).json["equal"] is True


async def test_one_database_becomes_two_and_workers_continue_there(
    servers: Servers, sharded: str, topic_prefix: str, line: CommandLine, empty: list[str]
) -> None:
    alone = empty[0]
    await migrate_dsn(alone)
    async with deployment(servers.endpoints, alone, topic_prefix, PARTITIONS) as before:
        await worked(before, count=200)
    kept = await state([alone])
    assert (await run(line, "replay")).code == 0
    assert await state([alone]) == kept
    async with deployment(servers.endpoints, sharded, topic_prefix, PARTITIONS) as after:
        owners = [after.own(partition) for partition in range(PARTITIONS)]
        await published(after, seed=9, count=100)
        await after.balanced()
        for owner in owners:
            await owner.stop()


async def test_a_replay_from_results_spreads_likewise(
    here: Deployment, line: CommandLine, empty: list[str]
) -> None:
    await worked(here, count=200)
    done = await run(on(line, empty), "replay", "--from-results", "-o", "json")
    assert done.code == 0, done.err
    held = [await rows(dsn, "select partition from waypost.partitions") for dsn in empty]
    assert [{row[0] for row in found} for found in held] == [{0, 2}, {1}]


@pytest.mark.parametrize(
    ("damage", "table"),
    [
        (
            "update waypost.checkpoints set name = 'x' where ctid = (select min(ctid) from waypost.checkpoints)",
            "c",
        ),
        (
            "update waypost.sessions set partition = 2 where ctid = (select min(ctid) from waypost.sessions)",
            "s",
        ),
        (
            "insert into waypost.sessions (session_id, partition, counter, checkpoints, first_recorded_at, "
            "last_recorded_at) values ('stray', 0, 1, 0, now(), now())",
            "sessions",
        ),
    ],
    ids=["a row", "a row of the other database", "an extra row of the other database"],
)
async def test_verify_finds_a_damage_in_the_second_database(
    here: Deployment, line: CommandLine, damage: str, table: str
) -> None:
    await worked(here, count=200)
    assert (await run(line, "verify", "-o", "json")).json["equal"] is True
    await rows(here.dsn.split()[1], damage)
    found = await run(line, "verify", "-o", "json")
    assert found.code == 1
    assert {row["partition"] for row in found.json["differences"]} == {1}
    assert any(row["table"].startswith(table) for row in found.json["differences"])


async def test_a_snapshot_of_two_goes_back_into_two_and_into_one(
    here: Deployment,
    line: CommandLine,
    empty: list[str],
    servers: Servers,
    second_postgres: EmbeddedPostgres,
) -> None:
    await worked(here, count=300)
    taken = await run(line, "snapshot", "create", "-o", "json")
    assert (taken.code, taken.json["partitions"]) == (0, PARTITIONS), taken.err
    before = await state(here.dsn.split())
    dry = await run(on(line, empty), "snapshot", "restore", "--dry-run", "-o", "json")
    assert dry.code == 0, dry.err
    assert await state(empty) == [{}, {}]
    done = await run(on(line, empty), "snapshot", "restore", "-o", "json")
    assert done.code == 0, done.err
    for mine, other in zip(before, await state(empty), strict=True):
        assert {**mine, "shard": []} == {**other, "shard": []}
    assert (await run(on(line, empty), "verify", "-o", "json")).json["equal"] is True
    full = await run(on(line, empty), "snapshot", "restore")
    assert full.code == 1
    assert "is not empty" in full.err.splitlines()[-1]
    single = servers.postgres.create_database("single")
    try:
        assert (await run(on(line, [single]), "snapshot", "restore")).code == 0
        assert (await run(on(line, [single]), "verify", "-o", "json")).json["equal"] is True
        # And from one into two.
        assert (await run(on(line, [single]), "snapshot", "create")).code == 0
        for dsn in empty:
            await rows(dsn, "drop schema waypost cascade")
        assert (await run(on(line, empty), "snapshot", "restore")).code == 0
        assert await contents(empty) == await contents(here.dsn.split())
    finally:
        servers.postgres.drop_database("single")
    assert (await run(line, "snapshot", "prune", "--keep", "1", "--yes")).code == 0


async def test_a_restore_that_fails_in_the_second_database_leaves_both_empty(
    here: Deployment, line: CommandLine, servers: Servers, second_postgres: EmbeddedPostgres
) -> None:
    await worked(here, count=100)
    assert (await run(line, "snapshot", "create")).code == 0
    pair = [
        servers.postgres.create_database("half_0", template=TEMPLATE),
        second_postgres.create_database("half_1", template=TEMPLATE),
    ]
    try:
        await noted(pair)
        await rows(pair[1], "alter table waypost.checkpoints add check (number < 0)")
        before = await state(pair)
        failed = await run(on(line, pair), "snapshot", "restore")
        assert (failed.code, failed.out) == (1, "")
        assert await state(pair) == before
    finally:
        servers.postgres.drop_database("half_0")
        second_postgres.drop_database("half_1")


async def test_both_databases_continue_with_new_topics(
    here: Deployment, line: CommandLine, servers: Servers
) -> None:
    await worked(here, count=100)
    sessions = (await run(line, "session", "list", "-o", "json")).json
    later = CommandLine(
        line.directory, {**line.settings, "WAYPOST_TOPIC_PREFIX": f"{here.topics.prefix}-later"}
    )
    assert (await run(later, "topics", "create", "--partitions", str(PARTITIONS))).code == 0
    adopted = await run(later, "topics", "adopt", "--yes", "-o", "json")
    assert (adopted.code, adopted.json["partitions"]) == (0, PARTITIONS), adopted.err
    async with deployment(servers.endpoints, here.dsn, f"{here.topics.prefix}-later", PARTITIONS) as there:
        owners = [there.own(partition) for partition in range(PARTITIONS)]
        for partition in range(PARTITIONS):
            await there.create(there.sessions(partition)[0], "later")
        await there.answered(PARTITIONS)
        for owner in owners:
            await owner.stop()
    again = (await run(line, "session", "list", "-o", "json")).json
    assert {row["session_id"] for row in again} >= {row["session_id"] for row in sessions}


async def test_a_replay_killed_in_the_middle_resumes(
    here: Deployment, line: CommandLine, empty: list[str]
) -> None:
    sent = await published(here, seed=3, count=400)
    new = on(line, empty)
    started = new.start("replay", "--batch-records", "5")
    await asyncio.to_thread(started.until, "replay: ")
    await asyncio.to_thread(started.stop)
    done = await run(new, "replay", "-o", "json")
    assert done.code == 0, done.err
    assert sum(row["next_offset"] for row in done.json) == sent
    assert (await run(new, "verify", "-o", "json")).json["equal"] is True
