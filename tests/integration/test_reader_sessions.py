"""Listing sessions: by id, by prefix, by last activity, in pages; and no read looks through a whole table."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

import waypost
from waypost import NaiveDatetimeError, Reader, SessionInfo
from waypost.reader.client import _AFTER_ALL, _LATEST, first_after, sessions_of
from waypost.reader.pool import statement_text
from waypost.wire.encode import policy_body
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.postgres.migrate import migrate

SESSIONS = 10_000
LONG = 3_000
DAY = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        made.own()
        yield made


@pytest.fixture
async def reader(world: Deployment) -> AsyncIterator[Reader]:
    async with Reader(world.dsn) as opened:
        yield opened


async def test_sessions_are_listed_with_prefix_and_cursor(world: Deployment, reader: Reader) -> None:
    ids = [f"a-{number:02}" for number in range(5)] + ["b%", "b_", "c"]
    offset = 0
    for session_id in ids:
        offset = await world.create(session_id)
    await world.send(policy_body({"max_checkpoints": 7, "max_age": 60}), b"c", EventType.CONFIGURE.wire)
    offset += 1
    await reader.wait_for((0, offset), timeout=PATIENCE)
    assert sorted(each.session_id for each in await reader.sessions()) == sorted(ids)
    assert [each.session_id for each in await reader.sessions(prefix="b_")] == ["b_"]
    pages = []
    cursor = None
    while not pages or cursor is not None:
        page = await reader.sessions(prefix="a-", limit=2, cursor=cursor)
        pages.append([each.session_id for each in page])
        cursor = page.cursor
    assert pages == [["a-00", "a-01"], ["a-02", "a-03"], ["a-04"]]
    info = await reader.session_info("c")
    assert info is not None
    assert (info.partition, info.last_number, info.checkpoint_count) == (0, 1, 1)
    assert info.policy is not None
    assert info.policy["max_checkpoints"] == 7
    assert info.first_recorded_at <= info.last_recorded_at


async def test_sessions_are_listed_by_their_last_activity(world: Deployment, reader: Reader) -> None:
    offset = 0
    for session_id in ("a-1", "b", "a-2", "a-3", "a-1"):
        offset = await world.create(session_id)
    await reader.wait_for((0, offset), timeout=PATIENCE)
    everything = await reader.recent_sessions()
    # The broker's clock counts milliseconds; ids break ties.
    order = sorted(await reader.sessions(), key=lambda s: (s.last_recorded_at, s.session_id), reverse=True)
    assert everything.sessions == order
    assert everything.cursor is None
    named = await reader.recent_sessions(prefix="a-")
    assert named.sessions == [each for each in order if each.session_id.startswith("a-")]
    since = order[1].last_recorded_at
    recent = await reader.recent_sessions(active_since=since)
    assert recent.sessions == [each for each in order if each.last_recorded_at >= since]


async def test_a_wrong_cursor_or_time_is_refused(world: Deployment, reader: Reader) -> None:
    for cursor in ("", "x", "session-1", "9" * 40 + " s"):
        with pytest.raises(ValueError, match="not a cursor of this list"):
            await reader.recent_sessions(cursor=cursor)
    with pytest.raises(NaiveDatetimeError):
        await reader.recent_sessions(active_since=datetime(2026, 11, 24))
    with pytest.raises(ValueError, match="limit"):
        await reader.recent_sessions(limit=0)


@pytest.mark.parametrize("text", ["\0", "run\0", "run\n", "\ud800", "r\udfff", "r" * 201])
async def test_impossible_session_ids_find_nothing_and_are_not_cursors(
    world: Deployment, reader: Reader, text: str
) -> None:
    assert await reader.sessions(prefix=text) == []
    assert (await reader.recent_sessions(prefix=text)).sessions == []
    async with reader.snapshot() as snapshot:
        assert await sessions_of(snapshot, prefix=text) == []
    with pytest.raises(ValueError, match="not a cursor of this list"):
        await reader.sessions(cursor=text)
    with pytest.raises(ValueError, match="not a cursor of this list"):
        await reader.recent_sessions(cursor=f"1 {text}")


@pytest.mark.parametrize(
    ("prefix", "after"),
    [("a", "b"), ("a\ud7ff", "a\ue000"), ("a\U0010ffff", "b"), ("\U0010ffff", _AFTER_ALL), ("", _AFTER_ALL)],
)
def test_what_begins_with_a_prefix_lies_below_what_follows_it(prefix: str, after: str) -> None:
    assert first_after(prefix) == after
    assert prefix + "\U0010ffff" < after or not prefix


# Many sessions.


FILL = """
insert into waypost.sessions (
    session_id, partition, counter, checkpoints, first_recorded_at, last_recorded_at
)
select format('team-%s/run-%s', i % 10, lpad(i::text, 5, '0')), 0, 2, 2, $1::timestamptz,
       $1::timestamptz + i * interval '7 seconds'
from generate_series(1, $2) i;
"""
FILL_CHECKPOINTS = """
insert into waypost.checkpoints (
    session_id, number, imported_id, name, taken_at, recorded_at, data, metadata, pinned, position
)
select s.session_id, n, case when n = 1 then 'old:' || s.session_id end, 'step-' || n % 7,
       $1::timestamptz + n * interval '1 second', $1::timestamptz, '{}',
       jsonb_build_object('n', n, 'even', n % 2 = 0), false, n
from (
    select session_id, 2 as checkpoints from waypost.sessions union all select 'long', $2
) s, generate_series(1, s.checkpoints) n;
"""


@pytest.fixture
async def many(database: str) -> AsyncIterator[Any]:
    """A connection to a database with many sessions, one of them long."""
    connection = await asyncpg.connect(database)
    await connection.execute("set synchronous_commit = off")
    await connection.execute(
        "insert into waypost.partitions (partition, partitions) select i, 1000 from generate_series(0, 999) i"
    )
    await connection.fetch(FILL, DAY, SESSIONS)
    await connection.fetch(FILL_CHECKPOINTS, DAY, LONG)
    await connection.execute("vacuum analyze waypost.sessions, waypost.checkpoints, waypost.partitions")
    yield connection
    await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def literal(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


FILTERS = [None, None, None, None, None]
BY_ID = ("checkpoints_pkey", "session_id = ")
# Each statement with its arguments, the indexes that it must use, and what the first must be asked for.
READS: list[tuple[str, list[Any], str, str]] = [
    ("count", ["long"], *BY_ID),
    ("ends", ["long"], *BY_ID),
    ("get", ["long", 7], *BY_ID),
    ("get_imported", ["long", "old:long"], "checkpoints_imported", "imported_id = "),
    ("latest", ["long", None], *BY_ID),
    ("latest", ["long", "step-3"], *BY_ID),
    ("oldest_first", ["long", 0, *FILTERS, 100], *BY_ID),
    ("oldest_first", ["long", 1000, "step-3", *FILTERS[1:], 100], *BY_ID),
    ("oldest_first", ["long", 0, None, DAY + timedelta(hours=0.5), *FILTERS[2:], 100], *BY_ID),
    ("newest_first", ["long", 2**62, None, None, DAY, DAY + timedelta(seconds=9), None, 100], *BY_ID),
    ("newest_first", ["long", 2**62, *FILTERS[:4], '{"n": 77}', 100], *BY_ID),
    ("summary", ["long"], *BY_ID),
    ("position", [77], "partitions_pkey", "partition = "),
    ("session", ["team-1/run-00001"], "sessions_pkey", "session_id = "),
    ("adapters/everything", ["long"], *BY_ID),
    ("adapters/index", ["long"], *BY_ID),
    ("adapters/newest", ["long", "step-3", '{"n": 3}', 5], *BY_ID),
    ("adapters/numbers", ["long", "{1,2,3}"], *BY_ID),
    ("adapters/part_numbers", ["long", "{a,b}"], *BY_ID),
    ("adapters/parts", ["long", "{a,b}"], *BY_ID),
    ("adapters/place", ["long", '{"n": 3}'], *BY_ID),
    ("adapters/runs", ["team-3/run-00003", "team-3/run-00103", "{r}"], "checkpoints_pkey", "session_id >= "),
    ("adapters/thread", ["long", '{"n": 3}', None, None, 2**62, 10], *BY_ID),
    ("adapters/holders", ["long", "{a,b}", "", "c"], *BY_ID),
    ("adapters/records", ["long"], *BY_ID),
    ("adapters/tag", ["long", 7], *BY_ID),
    (
        "adapters/google_adk_sessions",
        ["team-3/run-00003", "team-3/run-00103"],
        "checkpoints_pkey",
        "session_id >= ",
    ),
    (
        "adapters/claude_sessions",
        ["team-3/run-00003", "team-3/run-00103", True],
        "sessions_pkey checkpoints_pkey",
        "session_id >= ",
    ),
    ("adapters/rejected", [77, "{1,2}"], "rejected_commands_pkey", "partition = "),
    ("sessions", ["", "team-3/", "team-30", 50], "sessions_pkey", "session_id >= "),
    (
        "recent_sessions",
        [_LATEST, _AFTER_ALL, "", _AFTER_ALL, DAY, 50],
        "sessions_by_activity",
        "active_minute",
    ),
]


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_no_read_looks_through_a_table(many: Any, mode: str) -> None:
    await many.execute(f"set plan_cache_mode = {mode}")
    for name, arguments, index, condition in READS:
        await many.execute(f"prepare looked_at as {statement_text(name, 'waypost')}")
        values = ", ".join(map(literal, arguments))
        (row,) = await many.fetch(f"explain (format json) execute looked_at ({values})")
        await many.execute("deallocate looked_at")
        found = list(nodes(orjson.loads(row[0])[0]["Plan"]))
        told = f"{name} {arguments}: {found}"
        assert not [node for node in found if node["Node Type"] == "Seq Scan"], told
        used = {node["Index Name"]: node.get("Index Cond", "") for node in found if "Index Name" in node}
        assert used.keys() == set(index.split()), told
        assert condition in used[index.split()[0]], told


async def test_the_schema_may_be_named_by_a_reserved_word(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        await migrate(connection, "order")
        for name, *_ in READS:
            await connection.prepare(statement_text(name, "order"))
        await connection.execute(
            "insert into \"order\".sessions values ('s', 0, 1, null, 1, now(), now()); "
            "insert into \"order\".checkpoints values ('s', 1, null, 'n', now(), now(), '{}', '{}', false, null, 0)"
        )
    finally:
        await connection.close()
    async with Reader(database, schema="order") as reader:
        (listed,) = await reader.sessions()
        assert listed.session_id == "s"
        found = await reader.session("s").get_latest("n")
        assert found is not None
        assert found.id == "s:1"


def test_every_statement_is_looked_at() -> None:
    root = Path(waypost.__file__).parent
    stored = {path.stem for path in root.glob("reader/sql/*.sql")}
    stored |= {f"adapters/{path.stem}" for path in root.glob("adapters/sql/*.sql")}
    # A reader asks once which database it is, of a table that has one row.
    assert stored - {"shard"} == {name for name, *_ in READS}


async def test_ten_thousand_sessions_are_listed_in_pages_that_read_no_more_than_they_show(
    many: Any, database: str
) -> None:
    async with Reader(database) as reader:
        began = time.perf_counter()
        by_id: list[SessionInfo] = []
        cursor = None
        while not by_id or cursor is not None:
            page = await reader.sessions(cursor=cursor)
            by_id += page
            cursor = page.cursor
        seconds = time.perf_counter() - began
        by_time: list[SessionInfo] = []
        cursor = None
        pages = 0
        while pages == 0 or cursor is not None:
            recent = await reader.recent_sessions(cursor=cursor, limit=300)
            by_time += recent.sessions
            cursor = recent.cursor
            pages += 1
        print(f"{SESSIONS} sessions by id in {seconds:.3f} s, with {pages} pages by activity")
        assert len(by_id) == SESSIONS
        assert by_time == sorted(by_id, key=lambda s: (s.last_recorded_at, s.session_id), reverse=True)
        team = await reader.recent_sessions(prefix="team-3/", limit=SESSIONS)
        assert team.sessions == [each for each in by_time if each.session_id.startswith("team-3/")]
    values = ", ".join(map(literal, [_LATEST, _AFTER_ALL, "", _AFTER_ALL, DAY, 50]))
    await many.execute(f"prepare looked_at as {statement_text('recent_sessions', 'waypost')}")
    (row,) = await many.fetch(f"explain (analyze, format json) execute looked_at ({values})")
    plan = orjson.loads(row[0])[0]["Plan"]
    assert max(node["Actual Rows"] for node in nodes(plan)) < 100


async def test_the_index_by_activity_costs_a_session_no_new_row_within_a_minute(many: Any) -> None:
    at = DAY + timedelta(days=2)
    await many.execute("select pg_stat_reset_single_table_counters('waypost.sessions'::regclass)")
    for second in range(0, 60, 2):
        await many.execute(
            "update waypost.sessions set counter = counter + 1, last_recorded_at = $1 where session_id = $2",
            at + timedelta(seconds=second),
            "team-1/run-00001",
        )
    await many.execute("select pg_stat_force_next_flush()")
    row = await many.fetchrow(
        "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'waypost.sessions'::regclass"
    )
    assert row["n_tup_upd"] == 30
    # The first moves it into the minute; a full page may cost another.
    assert row["n_tup_hot_upd"] >= 25
