"""The reader on a real Postgres that a real owner wrote: the same answers as the in-memory manager."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest
from tests.harness import Deployment, deployment

from waypost import Checkpoint, CheckpointManager, NaiveDatetimeError, Reader, SessionReader
from waypost import commands as kinds
from waypost.envelope import command_headers
from waypost.outgoing import checkpoint_body, create_body, import_body, policy_body
from waypost.times import format_micros, to_micros
from waypost_worker.devserver import Servers

START = datetime(2026, 11, 24, 8, tzinfo=UTC)
NAMES = ["task_started", "tool_called", "task_done"]


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        made.own()
        yield made


@pytest.fixture
async def reader(world: Deployment) -> AsyncIterator[Reader]:
    async with Reader(world.dsn) as opened:
        yield opened


class Twin:
    """The same session in memory and in the service."""

    def __init__(self, world: Deployment, session_id: str) -> None:
        self.world = world
        self.session_id = session_id
        self.manager = CheckpointManager(session_id)
        self.offset = -1

    async def send(self, kind: str, body: bytes, at: datetime = START) -> None:
        headers = command_headers(
            f"{self.session_id}-{self.offset}", b"/test", kind.encode(), format_micros(to_micros(at)).encode()
        )
        self.offset = await self.world.send(body, self.session_id.encode(), headers=headers)

    async def create(self, name: str, at: datetime, data: Any = None, metadata: Any = None) -> None:
        data = {"at": str(at)} if data is None else data
        self.manager.create(name, data, metadata, timestamp=at)
        await self.send(kinds.CREATE, create_body(name, data, metadata), at)

    async def pin(self, checkpoint_id: str) -> None:
        self.manager.pin(checkpoint_id)
        await self.send(kinds.PIN, checkpoint_body(checkpoint_id))

    async def delete(self, checkpoint_id: str) -> None:
        self.manager.delete(checkpoint_id)
        await self.send(kinds.DELETE, checkpoint_body(checkpoint_id))

    async def take_over(self, items: list[dict[str, Any]]) -> None:
        self.manager.import_checkpoints(orjson.dumps(items))
        await self.send(kinds.IMPORT, import_body([orjson.dumps(item) for item in items]))

    async def applied(self, reader: Reader) -> SessionReader:
        """The session's reads, once everything was applied."""
        await reader.wait_for((0, self.offset), timeout=20)
        return reader.session(self.session_id)


async def varied(world: Deployment, session_id: str = "run-1") -> Twin:
    """A session in which times tie and go backwards, names repeat, and something is missing."""
    twin = Twin(world, session_id)
    minutes = [0, 5, 5, 3, 9, 9, 1, 12]
    for number, minute in enumerate(minutes):
        at = START + timedelta(minutes=minute, microseconds=minute)
        await twin.create(
            NAMES[number % 3], at, {"n": number, "z": "\0"}, {"step": number, "even": number % 2 == 0}
        )
    await twin.pin(f"{session_id}:2")
    await twin.delete(f"{session_id}:3")
    await twin.take_over(
        [
            {"id": "elsewhere:7", "name": "brought", "timestamp": "2026-11-24T08:04:00Z", "data": {}},
            {
                "id": f"{session_id}:3",
                "name": "back",
                "timestamp": "2020-01-01T00:00:00Z",
                "data": {"b": [1.50]},
            },
        ]
    )
    return twin


def shown(checkpoints: list[Checkpoint]) -> list[Any]:
    return [
        (c.id, c.name, c.timestamp, c.raw_data, c.raw_metadata, c.pinned, c.imported_id) for c in checkpoints
    ]


async def test_every_read_gives_what_the_manager_gives(world: Deployment, reader: Reader) -> None:
    twin = await varied(world)
    manager, session = twin.manager, await twin.applied(reader)
    assert shown(await session.get_all()) == shown(manager.get_all())
    for name in (*NAMES, "brought", "nothing"):
        assert shown(await session.get_by_name(name)) == shown(manager.get_by_name(name))
        latest, expected = await session.get_latest(name), manager.get_latest(name)
        assert (latest and shown([latest])) == (expected and shown([expected]))
    moments = [
        START + timedelta(minutes=minute, microseconds=us) for minute in range(-1, 14) for us in (0, minute)
    ]
    for moment in moments:
        assert shown(await session.get_since(moment)) == shown(manager.get_since(moment))
    for first, last in itertools.product(moments[::4], moments[1::4]):
        assert shown(await session.get_between(first, last)) == shown(manager.get_between(first, last))
    for checkpoint_id in (
        "run-1:1",
        "run-1:3",
        "run-1:99",
        "elsewhere:7",
        "run-1:07",
        "other:1",
        "",
        "run-1:",
    ):
        found, wanted = await session.get(checkpoint_id), manager.get(checkpoint_id)
        assert (found and shown([found])) == (wanted and shown([wanted]))
        assert await session.rollback_to(checkpoint_id) == manager.rollback_to(checkpoint_id)
    assert await session.get_summary() == manager.get_summary()
    assert await session.export() == manager.export()
    assert b"".join([piece async for piece in session.export_stream()]).decode() == manager.export()
    assert await session.count() == len(manager)
    assert shown([each async for each in session]) == shown(list(manager))


async def test_a_session_that_nobody_knows_is_empty(world: Deployment, reader: Reader) -> None:
    session = reader.session("nobody")
    manager = CheckpointManager("nobody")
    assert await session.get_all() == []
    assert await session.get_latest() is None
    assert await session.get_summary() == manager.get_summary()
    assert await session.export() == manager.export()
    assert b"".join([piece async for piece in session.export_stream()]).decode() == manager.export()
    assert (await session.count(), await reader.session_info("nobody")) == (0, None)


async def test_an_export_can_be_imported_into_another_session(world: Deployment, reader: Reader) -> None:
    session = await (await varied(world)).applied(reader)
    exported = await session.export()
    copy = CheckpointManager("run-1")
    assert copy.import_checkpoints(exported) == await session.count()
    assert copy.export() == exported


async def test_times_of_other_zones_are_the_same_moments(world: Deployment, reader: Reader) -> None:
    session = await (await varied(world)).applied(reader)
    elsewhere = (START + timedelta(minutes=5, microseconds=5)).astimezone(timezone(timedelta(hours=-7)))
    assert shown(await session.get_since(elsewhere)) == shown(
        await session.get_since(elsewhere.astimezone(UTC))
    )
    (first, *_) = await session.get_all()
    assert first.timestamp.utcoffset() == timedelta(0)


async def test_naive_times_are_refused(world: Deployment, reader: Reader) -> None:
    session = reader.session("s")
    naive = datetime(2026, 11, 24)
    for call in (
        session.get_since(naive),
        session.get_between(START, naive),
        session.get_between(naive, START),
        session.page(since=naive),
    ):
        with pytest.raises(NaiveDatetimeError):
            await call


async def test_filters_narrow_every_list(world: Deployment, reader: Reader) -> None:
    session = await (await varied(world)).applied(reader)
    everything = await session.get_all()

    def ids(checkpoints: list[Checkpoint]) -> list[str]:
        return [checkpoint.id for checkpoint in checkpoints]

    even = [c.id for c in everything if c.metadata.get("even") is True]
    assert ids(await session.get_all(metadata={"even": True})) == even != []
    assert ids(await session.get_all(metadata={"even": True, "step": 4})) == ["run-1:5"]
    assert ids(await session.get_all(metadata={})) == ids(everything)
    assert ids(await session.get_by_name("task_started", metadata={"even": True})) == ["run-1:7", "run-1:1"]
    since = await session.get_since(START, name="tool_called")
    assert ids(since) == [c.id for c in everything if c.name == "tool_called" and c.timestamp > START]
    between = await session.get_between(START, START + timedelta(hours=1), metadata={"even": False})
    assert ids(between) == [c.id for c in everything if c.metadata.get("even") is False]
    page = await session.page(name="task_done", since=START, metadata={"even": False}, newest_first=True)
    assert (ids(page.checkpoints), page.cursor) == (["run-1:6"], None)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_put_together_are_the_list(world: Deployment, reader: Reader, newest_first: bool) -> None:
    session = await (await varied(world)).applied(reader)
    found: list[Checkpoint] = []
    cursor = None
    pages = 0
    while pages == 0 or cursor is not None:
        page = await session.page(cursor=cursor, limit=3, newest_first=newest_first)
        assert len(page.checkpoints) <= 3
        found += page.checkpoints
        cursor = page.cursor
        pages += 1
    everything = await session.get_all()
    assert found == (everything[::-1] if newest_first else everything)
    assert pages == 4


async def test_a_wrong_page_is_refused(world: Deployment, reader: Reader) -> None:
    session = reader.session("s")
    for cursor in ("x", "-1", "1; drop", "9" * 30):
        with pytest.raises(ValueError, match="cursor"):
            await session.page(cursor=cursor)
    with pytest.raises(ValueError, match="limit"):
        await session.page(limit=0)
    with pytest.raises(ValueError, match="limit"):
        await reader.sessions(limit=0)


async def test_sessions_are_listed_with_prefix_and_cursor(world: Deployment, reader: Reader) -> None:
    ids = [f"a-{number:02}" for number in range(5)] + ["b%", "b_", "c"]
    offset = 0
    for session_id in ids:
        offset = await world.create(session_id)
    await world.send(policy_body({"max_checkpoints": 7, "max_age": 60}), b"c", kinds.CONFIGURE.encode())
    offset += 1
    await reader.wait_for((0, offset), timeout=20)
    assert sorted(each.session_id for each in await reader.sessions()) == sorted(ids)
    assert [each.session_id for each in await reader.sessions(prefix="b_")] == ["b_"]
    pages = []
    cursor = ""
    while page := await reader.sessions(prefix="a-", limit=2, cursor=cursor):
        pages.append([each.session_id for each in page])
        cursor = pages[-1][-1]
    assert pages == [["a-00", "a-01"], ["a-02", "a-03"], ["a-04"]]
    info = await reader.session_info("c")
    assert info is not None
    assert (info.partition, info.counter, info.checkpoints) == (0, 1, 1)
    assert info.policy is not None
    assert info.policy["max_checkpoints"] == 7
    assert info.first_recorded_at <= info.last_recorded_at


async def test_a_token_waits_until_its_command_is_applied(world: Deployment, reader: Reader) -> None:
    first = await world.create("s")
    await reader.wait_for((0, first), timeout=20)
    waiting = asyncio.create_task(reader.wait_for((0, first + 1), timeout=20))
    assert not (await asyncio.wait({waiting}, timeout=0.05))[0]
    await world.create("s")
    await waiting
    assert await reader.session("s").count() == 2


async def test_waiting_in_vain_says_how_far_the_partition_is(world: Deployment, reader: Reader) -> None:
    offset = await world.create("s")
    await reader.wait_for((0, offset), timeout=20)
    with pytest.raises(TimeoutError, match="partition 0 is applied up to offset 0, not yet to 5"):
        await reader.wait_for((0, 5), timeout=0.05)
    with pytest.raises(TimeoutError, match="partition 9"):
        await reader.wait_for((9, 0), timeout=0.05)


async def test_a_summary_and_an_export_are_of_one_moment(world: Deployment, reader: Reader) -> None:
    twin = await varied(world)
    session = await twin.applied(reader)
    pieces = session.export_stream()
    begun = await anext(pieces)
    offset = await world.send(b"{}", b"run-1", kinds.CLEAR.encode())
    await reader.wait_for((0, offset), timeout=20)
    assert await session.count() == 0
    text = begun + b"".join([piece async for piece in pieces])
    assert text.decode() == twin.manager.export()


async def test_a_role_that_may_only_read_is_enough(world: Deployment) -> None:
    twin = await varied(world)
    owner = await asyncpg.connect(world.dsn)
    role = f"reader_{world.topics.prefix.replace('-', '_')}"
    await owner.execute(
        f"create role {role} login password 'secret'; grant usage on schema waypost to {role}; "
        f"grant select on all tables in schema waypost to {role}"
    )
    address = urlsplit(world.dsn)
    mine = address._replace(netloc=f"{role}:secret@{address.hostname}:{address.port}").geturl()
    try:
        async with Reader(mine) as reader:
            session = await twin.applied(reader)
            assert await session.export() == twin.manager.export()
            assert await session.get_summary() == twin.manager.get_summary()
            assert [each.session_id for each in await reader.sessions()] == ["run-1"]
    finally:
        await owner.execute(f"drop owned by {role}; drop role {role}")
        await owner.close()


TERMINATE = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where datname = current_database() and pid <> pg_backend_pid() and application_name = ''"
)


async def test_lost_connections_are_replaced(world: Deployment, reader: Reader) -> None:
    session = await (await varied(world)).applied(reader)
    expected = await session.get_all()
    killer = await asyncpg.connect(world.dsn)
    try:
        for _ in range(3):
            await asyncio.gather(*(session.get_all() for _ in range(4)))
            await killer.execute(TERMINATE)
            assert await session.get_all() == expected
            await asyncio.gather(*(session.get_all() for _ in range(4)))
            await killer.execute(TERMINATE)
            assert (await session.get_summary())["total_count"] == len(expected)
    finally:
        await killer.close()


async def test_a_pool_limits_connections(world: Deployment) -> None:
    twin = await varied(world)
    async with Reader(world.dsn, pool_size=2) as reader:
        session = await twin.applied(reader)
        await asyncio.gather(*(session.get_all() for _ in range(20)))
        pool = await reader._opened()
        assert pool.get_size() <= 2


async def test_it_works_without_prepared_statements_as_behind_pgbouncer(world: Deployment) -> None:
    twin = await varied(world)
    async with Reader(world.dsn, statement_cache_size=0) as reader:
        session = await twin.applied(reader)
        assert await session.export() == twin.manager.export()
        assert b"".join([piece async for piece in session.export_stream()]).decode() == twin.manager.export()
        assert await session.get_summary() == twin.manager.get_summary()


async def test_a_statement_takes_no_longer_than_it_may(world: Deployment) -> None:
    blocker = await asyncpg.connect(world.dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute("lock table waypost.checkpoints in access exclusive mode")
    try:
        async with Reader(world.dsn, timeout=0.2) as reader:
            with pytest.raises(TimeoutError):
                await reader.session("s").get_all()
    finally:
        await transaction.rollback()
        await blocker.close()


WITHOUT_ASYNCPG = """
import asyncio, sys
sys.modules["asyncpg"] = None
from waypost import Reader
try:
    asyncio.run(Reader("postgresql://x").sessions())
except ImportError as error:
    print(error)
"""


def test_without_asyncpg_the_error_says_what_to_install() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ASYNCPG], check=True, capture_output=True, text=True, timeout=60
    )
    assert "waypost[reader]" in done.stdout


def test_a_schema_name_must_be_plain() -> None:
    with pytest.raises(ValueError, match="schema name"):
        Reader("postgresql://x", schema='w"; drop')
