"""Reading from two databases as from one: the same sessions, in the same order, in pages of any size."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.cli import CommandLine, Outcome
from tests.support.deployment import Deployment, deployment
from tests.support.recovery import run, worked
from tests.support.sharded import own_server, rows
from tests.support.timeouts import PATIENCE

from waypost import DatabaseUnavailableError, Reader
from waypost.reader.client import sessions_of
from waypost.reader.pages import SessionInfo
from waypost.wire.topics import partition_of
from waypost_worker.devserver import EmbeddedPostgres, Servers
from waypost_worker.postgres.migrate import migrate_dsn

PARTITIONS = 3


@pytest.fixture
async def here(servers: Servers, sharded: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, sharded, topic_prefix, PARTITIONS) as made:
        await worked(made, count=500)
        yield made


async def listed(reader: Reader, limit: int) -> list[SessionInfo]:
    found: list[SessionInfo] = []
    while page := await reader.sessions(limit=limit, cursor=found[-1].session_id if found else ""):
        assert len(page) <= limit
        found += page
    return found


async def recent(reader: Reader, limit: int) -> list[SessionInfo]:
    page = await reader.recent_sessions(limit=limit)
    found = page.sessions
    while page.cursor is not None:
        page = await reader.recent_sessions(limit=limit, cursor=page.cursor)
        found += page.sessions
    return found


async def test_listings_are_merged_in_order_whatever_the_page(here: Deployment) -> None:
    stored = [row for dsn in here.dsn.split() for row in await rows(dsn, "select * from waypost.sessions")]
    by_id = sorted(row["session_id"] for row in stored)
    by_time = [
        row["session_id"]
        for row in sorted(stored, key=lambda r: (r["last_recorded_at"], r["session_id"]), reverse=True)
    ]
    assert len(by_id) > 10
    async with Reader(here.dsn) as reader:
        for limit in (1, 3, 7, len(by_id), 500):
            assert [one.session_id for one in await listed(reader, limit)] == by_id
            assert [one.session_id for one in await recent(reader, limit)] == by_time
        assert {one.partition % 2 for one in await listed(reader, 500)} == {0, 1}
        middle = stored[len(stored) // 2]["last_recorded_at"]
        later = await reader.recent_sessions(active_since=middle)
        assert [one.session_id for one in later.sessions] == [
            one
            for one in by_time
            if next(row for row in stored if row["session_id"] == one)["last_recorded_at"] >= middle
        ]
        prefix = by_id[0][:-1]
        assert [one.session_id for one in await reader.sessions(prefix=prefix)] == [
            one for one in by_id if one.startswith(prefix)
        ]
        async with reader.snapshot() as snapshot:
            assert [one.session_id for one in await sessions_of(snapshot, limit=500)] == by_id


async def test_a_session_is_read_where_it_is(here: Deployment) -> None:
    async with Reader(here.dsn.split()) as reader:
        for info in await listed(reader, 100):
            assert info.partition == partition_of(info.session_id, PARTITIONS)
            assert await reader.session_info(info.session_id) == info
            session = reader.session(info.session_id)
            found = await session.get_all()
            assert len(found) == info.checkpoint_count == await session.count()
            assert (await session.get_summary())["total_count"] == info.checkpoint_count
            streamed = b"".join([piece async for piece in session.export_stream()])
            assert streamed.decode() == await session.export()
        assert await reader.session_info("nobody") is None


async def test_a_token_is_waited_for_in_its_partition_s_database(here: Deployment) -> None:
    owners = [here.own(partition) for partition in range(PARTITIONS)]
    async with Reader(here.dsn) as reader:
        for partition in range(PARTITIONS):
            session = here.sessions(partition)[0]
            offset = await here.create(session, "waited for")
            await reader.wait_for((partition, offset), PATIENCE)
            latest = await reader.session(session).get_latest()
            assert latest is not None
            assert latest.name == "waited for"
    for owner in owners:
        await owner.stop()


async def test_the_partition_count_is_learned_from_any_database(here: Deployment, servers: Servers) -> None:
    first, second = here.dsn.split()
    session = (await rows(second, "select session_id from waypost.sessions limit 1"))[0][0]
    async with Reader([first, second]) as reader:
        assert await reader.session_info(session) is not None
        assert reader._shards._partitions == PARTITIONS
    # Before any partition was owned there are no sessions, and a reader that asked then finds them later.
    for dsn in (first, second):
        await rows(dsn, "create table waypost.kept as table waypost.partitions")
        await rows(dsn, "delete from waypost.partitions")
    async with Reader([first, second]) as reader:
        assert await reader.session_info(session) is None
        for dsn in (first, second):
            await rows(dsn, "insert into waypost.partitions select * from waypost.kept")
        assert await reader.session_info(session) is not None


async def test_with_one_database_away_the_sessions_of_the_other_are_read(
    servers: Servers, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    second: EmbeddedPostgres = own_server(tmp_path / "postgres")
    try:
        await migrate_dsn(second.dsn)
        dsns = [database, second.dsn]
        line = CommandLine(
            tmp_path,
            {
                "WAYPOST_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
                "WAYPOST_POSTGRES_DSN": " ".join(dsns),
                "WAYPOST_TOPIC_PREFIX": topic_prefix,
            },
        )
        assert (await run(line, "migrate")).code == 0
        async with deployment(servers.endpoints, " ".join(dsns), topic_prefix, PARTITIONS) as made:
            await worked(made, count=100)
            there, away = made.sessions(2)[0], made.sessions(1)[0]
            await made.create(there)
            owner = made.own(2)
            async with Reader(dsns, reconnect=0) as reader:
                await made.until(lambda: owner.told.applied_count == 1)
                await asyncio.to_thread(second.kill)
                assert await reader.session(there).get_latest() is not None
                with pytest.raises(DatabaseUnavailableError, match="Connection refused"):
                    await reader.session(away).get_latest()
                with pytest.raises(DatabaseUnavailableError, match="Connection refused"):
                    await reader.sessions()
            await owner.stop()
            listing: Outcome = await run(line, "session", "list")
            assert (listing.code, listing.out) == (1, "")
            assert "shard 1 of 2" in listing.error
            await asyncio.to_thread(second.restart)
    finally:
        second.stop()
