"""Snapshots on the real Postgres and Kafka: what is restored is what was taken, and the log goes on from there."""

import asyncio
from pathlib import Path
from typing import Any

from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment, deployment
from tests.support.snapshots import (
    PARTITIONS,
    contents,
    edited,
    empty,
    here,
    line,
    restored,
    run,
    said,
    taken,
    trim,
    without_columns,
    worked,
)

from waypost.statements import load_statement
from waypost_worker.devserver import Servers
from waypost_worker.snapshots.manifest import TABLES

__all__ = ["empty", "here", "line"]


#: Of the database and not of what it stores: its schema, its place, its roles, and who ran what there.
OF_THE_DATABASE = {"migrations", "shard", "tenant_roles", "expiry_runs"}


async def test_every_table_of_the_schema_is_in_a_snapshot(here: Deployment) -> None:
    rows = await here.pool.fetch("select tablename from pg_tables where schemaname = 'waypost'")
    assert {row[0] for row in rows} == {*TABLES, *OF_THE_DATABASE}


async def test_every_column_that_is_not_computed_is_in_a_snapshot(here: Deployment) -> None:
    for table in TABLES:
        wanted = await here.pool.fetch(
            "select attname::text from pg_attribute where attrelid = ('waypost.' || $1)::regclass and attnum > 0 "
            "and not attisdropped and attgenerated = '' order by attnum",
            table,
        )
        async with here.pool.acquire() as connection:
            prepared = await connection.prepare(load_statement("waypost_worker.snapshots", f"copy_{table}"))
            taken = [attribute.name for attribute in prepared.get_attributes()]
        assert sorted(taken) == sorted(row[0] for row in wanted), table


async def test_a_restored_snapshot_is_what_was_taken_and_workers_continue_from_there(
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


async def test_a_snapshot_shows_one_moment_while_workers_continue(
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


async def test_a_replay_continues_from_a_restored_snapshot(
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
        await trim(here, here.topics.commands, int(partition), position)
    refused = await restored(line, empty, backup["name"])
    assert "retention removed what lies between" in said(refused)
    assert (await restored(line, empty, newer["name"])).code == 0
    ended = await run(line, "replay", "--onto-backup", "--postgres-dsn", empty)
    assert ended.code == 0, ended.err
    ours, theirs = await contents(here.dsn), await contents(empty)
    for table in ("sessions", "checkpoints", "recent_commands", "rejected_commands"):
        assert theirs[table] == ours[table], table


async def test_time_travel_begins_with_a_snapshot_where_the_log_is_cut(
    here: Deployment, line: CommandLine
) -> None:
    await worked(here)
    made = await taken(line)
    await worked(here, 12)
    until = ("--until-offset", f"0/{made['positions']['0'] + 3}")
    assert (await run(line, "replay", "--schema", "whole", *until)).code == 0
    for partition, position in made["positions"].items():
        await trim(here, here.topics.commands, int(partition), position)
    gone = await run(line, "replay", "--schema", "before", *until)
    assert (gone.code, "the command topic starts at offset" in gone.error) == (1, True)
    assert (await run(line, "snapshot", "restore", "--schema", "before")).code == 0
    ended = await run(line, "replay", "--schema", "before", "--onto-backup", *until)
    assert ended.code == 0, ended.err
    assert await state_hash(here.dsn, "before") == await state_hash(here.dsn, "whole")
    assert await state_hash(here.dsn, "before") != await state_hash(here.dsn)


async def test_a_separate_schema_can_be_filled_next_to_the_old_one(
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
    # What came with later migrations is computed, is in these rows, or becomes this.
    await here.pool.execute("delete from waypost.rejected_commands")
    await here.pool.execute(
        """update waypost.partitions set former_producer_ids = null, rejected_window =
        jsonb_build_object('since', next_offset, 'parts', '[[0, 0]]'::jsonb, 'newest_bytes', 0)"""
    )
    name = (await taken(line))["name"]
    assert await here.pool.fetchval("select count(*) from waypost.migrations") > 1

    def as_of_the_first_migration(fields: dict[str, Any]) -> None:
        fields["migrations"] = fields["migrations"][:1]

    later = ("rejected_window", "foreign_results", "former_producer_ids")
    later = (*later, "authority", "blocked_offset", "skip_offset")
    snapshot = tmp_path / "snapshots" / name
    without_columns("rejected_commands", "value_bytes", "headers_bytes")(snapshot)
    without_columns("partitions", *later)(snapshot)
    without_columns("sessions", "erased_at")(snapshot)
    edited(as_of_the_first_migration)(snapshot)
    assert (await restored(line, empty)).code == 0
    assert await contents(empty) == await contents(here.dsn)
    assert (await run(line, "migrate", "--dry-run", "--postgres-dsn", empty, "-o", "json")).json == []
