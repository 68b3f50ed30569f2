"""The store on the real Postgres: which errors pass, which don't, and what its statements look at."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.conformance.stores import MOMENT, PARTITIONS, Hand, entry, puts
from tests.support.timeouts import PATIENCE

from waypost_worker.partition.ports import (
    Changes,
    Fence,
    FencedError,
    RefusedError,
    RejectedRow,
    TimedOutError,
    UnavailableError,
)
from waypost_worker.postgres.errors import owner_errors
from waypost_worker.postgres.migrate import SchemaError
from waypost_worker.postgres.pool import check_schema, open_pool
from waypost_worker.postgres.statements import StatementForms, statement
from waypost_worker.postgres.store import PostgresStore


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    made = await open_pool(database, size=3)
    yield made
    await made.close()


@pytest.fixture
async def idle_pool(untouched_database: str) -> AsyncIterator[Any]:
    """A pool for statements that change nothing."""
    made = await open_pool(untouched_database, size=3)
    yield made
    await made.close()


@pytest.fixture
async def hand(pool: Any) -> Hand:
    store = PostgresStore(pool, 0)
    return Hand(store, await store.acquire(PARTITIONS))


# The outbox.


async def test_what_an_older_owner_commits_while_its_heir_waits_for_the_row_is_in_the_heir_s_outbox(
    hand: Hand, pool: Any
) -> None:
    """The heir must read the outbox in a statement that begins after it has the row's lock."""
    async with pool.acquire() as older:
        commit = older.transaction()
        await commit.start()
        await older.execute("update waypost.partitions set next_offset = 1 where partition = 0")
        await older.execute("insert into waypost.outbox values (0, 0, 0, 'owed')")
        heir = asyncio.create_task(PostgresStore(pool, 0).acquire(PARTITIONS))
        async with asyncio.timeout(PATIENCE):
            while not await older.fetchval(
                "select true from pg_locks where not granted and pid <> pg_backend_pid()"
            ):
                pass
        await commit.commit()
    claim = await heir
    assert claim.next_offset == 1
    assert [entry.payload for entry in claim.outbox] == [b"owed"]


# Errors.


async def fail_with(pool: Any, state: str) -> None:
    async with owner_errors(pool), pool.acquire() as connection:
        await connection.execute(f"do $$ begin raise exception 'as told' using errcode = '{state}'; end $$")


@pytest.mark.parametrize(
    "state",
    [
        "08006",
        "08P01",
        "25006",
        "25P03",
        "25P04",
        "28P01",
        "3D000",
        "40001",
        "40P01",
        "53100",
        "53300",
        "55P03",
        "57014",
        "57P01",
        "57P03",
        "58030",
    ],
)
async def test_what_passes_is_unavailable(idle_pool: Any, state: str) -> None:
    with pytest.raises(UnavailableError, match=r"^Postgres: .*as told"):
        await fail_with(idle_pool, state)


@pytest.mark.parametrize(
    ("state", "setting"), [("25P04", "transaction_timeout"), ("57014", "statement_timeout")]
)
async def test_what_took_too_long_names_the_limit(idle_pool: Any, state: str, setting: str) -> None:
    with pytest.raises(TimedOutError, match=r"^Postgres: .*as told") as slow:
        await fail_with(idle_pool, state)
    assert setting in slow.value.setting


async def backend(pool: Any) -> int:
    found: int = await pool.fetchval("select pg_backend_pid()")
    return found


@pytest.mark.parametrize("state", ["0A000", "25006", "57P01", "57P03"])
async def test_connections_that_may_be_outdated_are_replaced(idle_pool: Any, state: str) -> None:
    before = await backend(idle_pool)
    assert await backend(idle_pool) == before
    with pytest.raises((UnavailableError, asyncpg.FeatureNotSupportedError)):
        await fail_with(idle_pool, state)
    assert await backend(idle_pool) != before


SLOW = """
create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(1); return new; end $$;
create trigger slow before insert on waypost.checkpoints for each row execute function public.slow();
"""


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout", "request timeout"])
async def test_a_commit_that_takes_too_long_names_the_limit_and_works_once_it_is_raised(
    database: str, limit: str
) -> None:
    owner = await asyncpg.connect(database)
    name = urlsplit(database).path[1:]
    await owner.execute(SLOW)
    ours = limit == "request timeout"
    if not ours:
        await owner.execute(f"alter database {name} set {limit} = '300ms'")
    made = await open_pool(database, size=2, timeout=0.3 if ours else 10)
    try:
        store = PostgresStore(made, 0)
        hand = Hand(store, await store.acquire(PARTITIONS))
        with pytest.raises(TimedOutError) as slow:
            await hand.commit(puts("s", [entry(1)]))
        assert ("WAYPOST_REQUEST_TIMEOUT" if ours else limit) in slow.value.setting
        await made.fetchval("select 1")  # a connection that begins before the limit is raised
        if ours:
            await owner.execute("drop trigger slow on waypost.checkpoints")
        else:
            await owner.execute(f"alter database {name} reset {limit}")
        again = Hand(store, await store.acquire(PARTITIONS))
        await again.commit(puts("s", [entry(1)]))
    finally:
        made.terminate()
        await owner.close()


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("42P01", "waypost migrate"),
        ("3F000", "waypost migrate"),
        ("42501", "grant its role"),
        ("26000", "WAYPOST_POSTGRES_STATEMENT_CACHE=0"),
        ("42P05", "WAYPOST_POSTGRES_STATEMENT_CACHE=0"),
    ],
)
async def test_what_needs_a_person_is_refused_with_advice(idle_pool: Any, state: str, advice: str) -> None:
    with pytest.raises(RefusedError, match=f"as told.*{advice}"):
        await fail_with(idle_pool, state)


@pytest.mark.parametrize("state", ["23505", "22021", "22P05", "42601", "42703", "0A000", "P0001", "XX000"])
async def test_our_own_mistakes_are_not_hidden(idle_pool: Any, state: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="as told"):
        await fail_with(idle_pool, state)


@pytest.mark.parametrize(
    ("query", "arguments"),
    [("select $1::integer", ("text",)), ("select 1", (2,)), ("select $1::text", ("\ud800",))],
    ids=["wrong type", "too many", "surrogate"],
)
async def test_a_wrong_call_is_not_hidden(idle_pool: Any, query: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((asyncpg.InterfaceError, asyncpg.DataError)):
        async with owner_errors(idle_pool), idle_pool.acquire() as connection:
            await connection.fetchval(query, *arguments)


KILL_ME = "select pg_terminate_backend(pg_backend_pid())"


async def run(pool: Any, *queries: str, terminated: bool = False) -> None:
    async with owner_errors(pool), pool.acquire() as connection:
        if terminated:
            connection.terminate()
        for query in queries:
            await connection.execute(query)


async def test_a_connection_that_is_killed_in_use_is_unavailable_and_replaced(pool: Any, hand: Hand) -> None:
    for _ in range(5):
        with pytest.raises(UnavailableError):
            await run(pool, KILL_ME)
    await hand.commit()


async def test_a_connection_that_was_lost_before_is_unavailable(pool: Any) -> None:
    with pytest.raises(UnavailableError):
        await run(pool, "select 1", terminated=True)


async def test_a_closed_pool_is_unavailable(database: str) -> None:
    pool = await open_pool(database)
    await pool.close()
    with pytest.raises(UnavailableError):
        await PostgresStore(pool, 0).load(["s"])


async def test_a_free_connection_is_not_waited_for_without_end(database: str) -> None:
    pool = await open_pool(database, size=1)
    async with pool.acquire():
        with pytest.raises(UnavailableError):
            await PostgresStore(pool, 0, timeout=0.05).load(["s"])
    assert await PostgresStore(pool, 0).load(["s"]) == {}
    await pool.close()


async def test_a_lock_is_not_waited_for_without_end(database: str, pool: Any, hand: Hand) -> None:
    hasty_pool = await open_pool(database, size=1, timeout=1)
    hasty = PostgresStore(hasty_pool, 0)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("select from waypost.partitions for update")
        for call in (hasty.commit(hand.batch()), hasty.acquire(PARTITIONS), hasty.save_position(1, 0, 1)):
            with pytest.raises(UnavailableError):
                await call
    await hand.commit()
    assert (await hasty.acquire(PARTITIONS)).epoch == 2
    await hasty_pool.close()


async def test_a_missing_schema_is_reported_at_the_start(database: str, pool: Any) -> None:
    async with pool.acquire() as connection:
        await check_schema(connection)
        await connection.execute("drop schema waypost cascade")
        with pytest.raises(SchemaError, match="run 'waypost migrate'"):
            await check_schema(connection)
    with pytest.raises(RefusedError, match="no longer has a Waypost schema"):
        await PostgresStore(pool, 0).load(["s"])


# The row of a partition, found by its place.


async def test_a_row_that_was_moved_looks_like_a_lost_partition_and_is_found_by_acquiring(
    pool: Any, hand: Hand
) -> None:
    await hand.commit()
    await PostgresStore(pool, 1).acquire(PARTITIONS)
    await PostgresStore(pool, 0).record_claim(1, Fence(1, 1))  # over another place than the hand knows
    with pytest.raises(FencedError):
        await hand.commit()
    hand = Hand(hand.store, await hand.store.acquire(PARTITIONS))
    await hand.commit()
    async with pool.acquire() as connection:
        await connection.execute("vacuum full waypost.partitions")
    with pytest.raises(FencedError):
        await hand.commit()
    hand = Hand(hand.store, await hand.store.acquire(PARTITIONS))
    await hand.commit()
    assert hand.next_offset == 30


async def test_vacuum_does_not_move_the_row(pool: Any, hand: Hand) -> None:
    for _ in range(200):
        await hand.commit()
    async with pool.acquire() as connection:
        await connection.execute("vacuum freeze waypost.partitions")
    await hand.commit()
    await hand.store.record_claim(1, Fence(1, 1))
    await hand.store.save_position(1, 5, 6)
    await hand.commit()


# Refused commands.


async def test_a_rejected_command_is_kept_as_received(pool: Any, hand: Hand) -> None:
    row = RejectedRow(
        3, "s", "id", "invalid-body", "a\0b", b"\xff", None, [("h", b"\x00\xff"), ("n", None)], MOMENT
    )  # type: ignore[list-item]
    await hand.commit(Changes(rejected=[row, row._replace(offset=4, session_id=None, key=None)]))
    first, second = await pool.fetch('select * from waypost.rejected_commands order by "offset"')
    assert (first["partition"], first["offset"], first["message"]) == (0, 3, "a\ufffdb")
    assert (first["key"], first["value"], first["recorded_at"]) == (b"\xff", None, MOMENT)
    assert first["headers"] == b'[["h","\\u0000\xc3\xbf"],["n",null]]'
    assert (second["session_id"], second["key"]) == (None, None)


# Plans.

NAMES = ["commit", "commit_group", "save_position", "record_claim", "load", "contents", "read_outbox"]
STATEMENTS = {name: statement(name) for name in NAMES}
STATEMENTS |= {f"short {name}": StatementForms(name).short for name in ("commit", "commit_group")}


@pytest.mark.parametrize("sql", STATEMENTS.values(), ids=STATEMENTS)
async def test_no_statement_of_the_worker_reads_a_whole_table(pool: Any, hand: Hand, sql: str) -> None:
    # The tables are next to empty, which is when reading all of them looks cheapest.
    count = max(number for number in range(1, 80) if f"${number}" in sql)
    async with pool.acquire() as connection:
        await connection.execute(f"prepare guarded as {sql}")
        nothing = ", ".join(["null"] * count)
        plan = [row[0] for row in await connection.fetch(f"explain execute guarded({nothing})")]
        await connection.execute("deallocate guarded")
    assert any("Index Scan" in line or "Tid Scan" in line for line in plan)
    assert not [line for line in plan if "Seq Scan" in line or "Hash" in line or "Merge" in line], plan


async def test_growing_tables_are_never_read_whole(pool: Any, hand: Hand) -> None:
    await pool.execute("select pg_stat_reset()")
    for first in range(1, 1001, 100):
        changes = puts("s", [entry(number) for number in range(first, first + 100)])
        changes.drops = {("s", first - 100): None}
        changes.pins = {("s", first - 50): True}
        await hand.commit(changes)
        await hand.store.load(["s"])
        await hand.store.contents([("s", first)])
    await pool.execute("select pg_stat_force_next_flush()")
    rows = await pool.fetch(
        "select relname, seq_tup_read from pg_stat_user_tables where schemaname = 'waypost' and seq_tup_read > 0"
    )
    assert [tuple(row) for row in rows] == []


# Poolers.


async def test_without_a_statement_cache_nothing_is_set_for_a_session(database: str) -> None:
    plain = await open_pool(database, statement_cache_size=0)
    ours = await open_pool(database)
    settings = "select current_setting('plan_cache_mode'), current_setting('enable_seqscan')"
    assert tuple(await plain.fetchrow(settings)) == ("auto", "on")
    assert tuple(await ours.fetchrow(settings)) == ("force_generic_plan", "off")
    store = PostgresStore(plain, 0)
    hand = Hand(store, await store.acquire(PARTITIONS))
    await hand.commit(puts("s", [entry(1)]))
    assert len((await store.load(["s"]))["s"]) == 1
    await asyncio.gather(plain.close(), ours.close())


# What a batch says.


async def test_where_a_batch_is_cut_does_not_show_in_the_first_time_of_a_session(
    hand: Hand, pool: Any
) -> None:
    changes = puts("s", [entry(1), entry(2)])
    changes.begun["s"] = MOMENT - 7
    await hand.commit(changes)
    async with pool.acquire() as connection:
        row = await connection.fetchrow("select * from waypost.sessions where session_id = 's'")
    assert (row["first_recorded_at"], row["last_recorded_at"]) == (MOMENT - 7, MOMENT)
