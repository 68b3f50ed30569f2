"""The schema: made once however many ask, refused where it is not this version's, with the way out in the message."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from waypost.statements import for_schema
from waypost_worker.devserver import Servers
from waypost_worker.postgres import migrate as module
from waypost_worker.postgres.migrate import (
    Migration,
    SchemaError,
    check_schema,
    migrate,
    migrate_dsn,
    pending,
)
from waypost_worker.postgres.pool import open_pool
from waypost_worker.postgres.statements import statement
from waypost_worker.postgres.store import PostgresStore

TABLES = {
    "checkpoints": "session_id text, number bigint, imported_id text?, name text, taken_at timestamptz, "
    "recorded_at timestamptz, data bytea, metadata jsonb, pinned boolean, command_id text?, position bigint",
    "sessions": "session_id text, partition integer, counter bigint, policy jsonb?, checkpoints integer, "
    "first_recorded_at timestamptz, last_recorded_at timestamptz, active_minute timestamptz, "
    "erased_at timestamptz?",
    "recent_commands": "session_id text, position bigint, command_id text, number bigint?",
    "partitions": "partition integer, partitions integer, next_offset bigint, epoch bigint, emitted bigint, "
    "results_offset bigint, anchor bytea?, producer_id bigint?, producer_epoch integer?, "
    "default_policy jsonb?, default_commands jsonb, rejected_window jsonb, "
    "foreign_results jsonb, former_producer_ids jsonb?, authority jsonb?, "
    "blocked_offset bigint?, skip_offset bigint?",
    "outbox": "partition integer, first_offset bigint, last_offset bigint, payload bytea",
    "rejected_commands": "partition integer, offset bigint, session_id text?, command_id text?, code text, "
    "message text, key bytea?, value bytea?, headers bytea, recorded_at timestamptz, value_bytes bigint?, "
    "headers_bytes bigint?",
    "shard": "only_row boolean, shard integer, shards integer, set_id uuid, recorded_at timestamptz",
    "tenant_roles": "role_name name, tenant text?",
    "expiry_runs": "prefix text, idle interval, ended_at timestamptz, expired bigint, removed bigint",
    "migrations": "number integer, name text, sha256 text, applied_at timestamptz",
}


@pytest.fixture
def empty(servers: Servers, request: pytest.FixtureRequest) -> Any:
    """A database without anything in it."""
    name = f"empty_{abs(hash(request.node.nodeid)):x}"
    yield servers.postgres.create_database(name)
    servers.postgres.drop_database(name)


@asynccontextmanager
async def connected(dsn: str, **options: Any) -> AsyncIterator[Any]:
    connection: Any = await asyncpg.connect(dsn, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def columns(connection: Any, schema: str = "waypost") -> dict[str, str]:
    """The schema's tables, each column with its type, and a question mark where it may be null."""
    rows = await connection.fetch(
        """select c.relname, a.attname, a.attnotnull,
                  case format_type(a.atttypid, null) when 'timestamp with time zone' then 'timestamptz'
                  else format_type(a.atttypid, null) end as type
           from pg_class c join pg_attribute a on a.attrelid = c.oid
           where c.relnamespace = $1::text::regnamespace and c.relkind = 'r' and a.attnum > 0
           order by c.relname, a.attnum""",
        schema,
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        column = f"{row['attname']} {row['type']}{'' if row['attnotnull'] else '?'}"
        found.setdefault(row["relname"], []).append(column)
    return {table: ", ".join(listed) for table, listed in found.items()}


def with_one_more(sql: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let this version have one migration more than it has; the new one's number."""
    known = module.migrations()
    number = len(known) + 1
    monkeypatch.setattr(module, "migrations", lambda: [*known, Migration(number, "later", sql)])
    return number


# Making it.


async def test_the_migrations_make_the_tables_of_the_contract(empty: str) -> None:
    async with connected(empty) as connection:
        applied = await migrate(connection)
        assert await columns(connection) == TABLES
        rows = await connection.fetch("select number, name, sha256 from waypost.migrations order by number")
    assert [tuple(row) for row in rows] == [(one.number, one.name, one.sha256) for one in applied]
    assert [one.number for one in applied] == list(range(1, len(applied) + 1))


async def test_pending_migrations_are_listed_without_changing_anything(empty: str) -> None:
    async with connected(empty) as connection:
        todo = await pending(connection)
        assert [one.number for one in todo] == [one.number for one in module.migrations()]
        assert await connection.fetchval("select to_regnamespace('waypost')") is None
        with pytest.raises(SchemaError, match="run 'waypost migrate'"):
            await check_schema(connection)
        await migrate(connection)
        assert await pending(connection) == []
        await check_schema(connection)


async def test_migrating_again_changes_nothing(database: str) -> None:
    async with connected(database) as connection:
        before = await connection.fetch("select * from waypost.migrations")
        assert await migrate(connection) == []
        assert await connection.fetch("select * from waypost.migrations") == before


async def test_of_many_concurrent_migrators_one_applies_and_all_succeed(empty: str) -> None:
    outcomes = await asyncio.gather(*(migrate_dsn(empty) for _ in range(8)))
    assert sorted(map(len, outcomes)) == [0] * 7 + [len(module.migrations())]
    async with connected(empty) as connection:
        assert await columns(connection) == TABLES


async def test_a_later_migration_finds_the_data_of_the_earlier_ones(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = with_one_more("alter table waypost.sessions add column tenant text;", monkeypatch)
    async with connected(database) as connection:
        await connection.execute(
            "insert into waypost.sessions values ('s', 0, 1, null, 1, now(), now())",
        )
        assert [one.number for one in await migrate(connection)] == [number]
        row = await connection.fetchrow("select session_id, tenant from waypost.sessions")
    assert tuple(row) == ("s", None)


async def test_a_migration_that_fails_leaves_no_trace(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_one_more("create table waypost.extra (); select 1 / 0;", monkeypatch)
    async with connected(empty) as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate(connection)
        assert await connection.fetchval("select to_regnamespace('waypost')") is None


async def test_a_migration_may_take_longer_than_a_statement_of_the_worker(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_one_more("select pg_sleep(1);", monkeypatch)
    async with connected(empty, command_timeout=0.5) as connection:
        await migrate(connection)
        await check_schema(connection)


# Refusing.


async def test_a_newer_schema_is_refused(database: str) -> None:
    newer = len(module.migrations()) + 1
    async with connected(database) as connection:
        await connection.execute("insert into waypost.migrations values ($1, 'future', 'sum')", newer)
        for ask in (migrate, pending, check_schema):
            with pytest.raises(SchemaError, match=rf"migration {newer} \(future\).*newer Waypost.*run that"):
                await ask(connection)


async def test_a_changed_migration_is_refused(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("update waypost.migrations set sha256 = 'another' where number = 1")
        for ask in (migrate, pending, check_schema):
            with pytest.raises(SchemaError, match=r"migration 1 \(first\) was applied with different text"):
                await ask(connection)


async def test_a_gap_in_the_history_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    number = with_one_more("select 1;", monkeypatch)
    async with connected(database) as connection:
        await connection.execute("update waypost.migrations set number = $1 where number = 1", number)
        with pytest.raises(SchemaError, match=r"migration 2 \(\w+\) but not 1"):
            await migrate(connection)


async def test_a_database_that_cannot_hold_every_text_is_refused(servers: Servers, empty: str) -> None:
    async with connected(empty) as admin:
        await admin.execute("create database latin encoding 'LATIN1' template template0 locale 'C'")
        try:
            async with connected(servers.postgres.dsn_of("latin")) as connection:
                with pytest.raises(SchemaError, match=r"LATIN1.*ENCODING 'UTF8'"):
                    await migrate(connection)
        finally:
            await admin.execute("drop database latin")


async def test_a_lock_that_others_hold_is_not_waited_for_without_end(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_one_more(
        "set local lock_timeout = '50ms'; alter table waypost.sessions add tenant text;", monkeypatch
    )
    async with connected(database) as reader, connected(database) as connection:
        async with reader.transaction():
            await reader.execute("select from waypost.sessions")
            with pytest.raises(SchemaError, match=r"was not migrated.*held a lock.*Nothing was changed"):
                await migrate(connection)
        assert len(await migrate(connection)) == 1


# Rights.


@asynccontextmanager
async def plain_role(admin: Any) -> AsyncIterator[str]:
    """A role that may log in and nothing else; dropped with all it owns."""
    await admin.execute("create role plain login password 'plain'")
    try:
        yield "plain"
    finally:
        await admin.execute("drop owned by plain cascade; drop role plain")


async def test_a_role_that_may_not_change_the_schema_migrates_where_nothing_is_pending(database: str) -> None:
    async with connected(database) as admin, plain_role(admin) as role:
        await admin.execute(
            "grant usage on schema waypost to plain; grant select on all tables in schema waypost to plain"
        )
        async with connected(database, user=role, password=role) as connection:
            assert await migrate(connection) == []


async def test_a_schema_that_an_administrator_made_needs_no_right_to_make_schemas(empty: str) -> None:
    async with connected(empty) as admin, plain_role(admin) as role:
        await admin.execute("create schema waypost authorization plain")
        async with connected(empty, user=role, password=role) as connection:
            await migrate(connection)
            assert await columns(connection) == TABLES


# Other schemas.


@pytest.mark.parametrize("schema", ["waypost_replay", "order", "_2"])
async def test_a_side_schema_is_whole_and_apart(database: str, schema: str) -> None:
    async with connected(database) as connection:
        await migrate(connection, schema)
        assert await columns(connection, f'"{schema}"') == TABLES
        with pytest.raises(SchemaError):
            await check_schema(connection, f"{schema}_other")
    pool = await open_pool(database)
    try:
        aside, real = PostgresStore(pool, 0, schema), PostgresStore(pool, 0)
        await aside.acquire(3)
        assert (await aside.acquire(3)).epoch == 2
        assert (await real.acquire(5)).epoch == 1
    finally:
        await pool.close()


@pytest.mark.parametrize(
    "schema", ["", "Waypost", "way-post", 'x"; drop schema waypost; --', "1st", "s" * 64, "ß"]
)
def test_a_schema_name_that_is_not_a_plain_identifier_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="can't be used: take a-z"):
        statement("commit", schema)


def test_no_statement_names_a_table_without_its_schema() -> None:
    package = Path(module.__file__).parent
    texts = [*package.glob("sql/*.sql"), *package.glob("migrations/*.sql")]
    assert len(texts) > 10
    for path in texts:
        elsewhere = for_schema(path.read_text(), "elsewhere")
        lines = [line.partition("--")[0] for line in elsewhere.splitlines()]
        # Roles are the cluster's, settings are a connection's, and neither belongs to a schema.
        named = [re.sub(r"waypost_(migrator|worker|reader|tenant_reader)\b", "", line) for line in lines]
        assert not [line for line in named if "waypost" in line], path
