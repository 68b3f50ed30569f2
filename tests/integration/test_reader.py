"""The reader on a real Postgres that a real owner wrote: the same answers as the in-memory manager."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.integration.reading import NAMES, START, shown, varied
from tests.support.deployment import Deployment, deployment
from tests.support.timeouts import PATIENCE

from waypost import (
    Checkpoint,
    CheckpointManager,
    InvalidCommandError,
    NaiveDatetimeError,
    Reader,
    ReaderTimeoutError,
)
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers


@pytest.fixture
async def world(servers: Servers, database: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, database, topic_prefix) as made:
        made.own()
        yield made


@pytest.fixture
async def reader(world: Deployment) -> AsyncIterator[Reader]:
    async with Reader(world.dsn) as opened:
        yield opened


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


@pytest.mark.parametrize("odd", ["\0", "a\0b", "\ud800", "", "n" * 300])
async def test_what_no_checkpoint_can_be_called_is_not_found(
    world: Deployment, reader: Reader, odd: str
) -> None:
    session, manager = reader.session("s"), CheckpointManager("s")
    assert await session.get(odd) is manager.get(odd) is None
    assert await session.get_latest(odd) is manager.get_latest(odd) is None
    assert await session.get_by_name(odd) == manager.get_by_name(odd) == []
    assert await session.get_all(name=odd) == (await session.page(name=odd)).checkpoints == []


async def test_arguments_of_a_wrong_kind_are_named(reader: Reader) -> None:
    session = reader.session("s")
    with pytest.raises(InvalidCommandError, match="control character"):
        reader.session("a\0b")
    assert await reader.session("").get("no-colon") is None
    with pytest.raises(InvalidCommandError, match="metadata must be a dict, not list"):
        await session.get_all(metadata=[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="strings, not int"):
        await session.get_by_name(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a datetime with a time zone, not str"):
        await session.get_since("2026-11-24")  # type: ignore[arg-type]


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


async def test_a_token_waits_until_its_command_is_applied(world: Deployment, reader: Reader) -> None:
    first = await world.create("s")
    await reader.wait_for((0, first), timeout=PATIENCE)
    waiting = asyncio.create_task(reader.wait_for((0, first + 1), timeout=PATIENCE))
    assert not (await asyncio.wait({waiting}, timeout=0.05))[0]
    await world.create("s")
    await waiting
    assert await reader.session("s").count() == 2


async def test_waiting_in_vain_says_how_far_the_partition_is(world: Deployment, reader: Reader) -> None:
    offset = await world.create("s")
    await reader.wait_for((0, offset), timeout=PATIENCE)
    with pytest.raises(ReaderTimeoutError, match="Partition 0 is applied up to offset 0, but not to 5"):
        await reader.wait_for((0, 5), timeout=0.05)
    with pytest.raises(ReaderTimeoutError, match="Partition 9"):
        await reader.wait_for((9, 0), timeout=0.05)
    async with Reader(world.dsn, pool_size=1) as narrow:
        await narrow.session_info("s")
        async with narrow.snapshot():
            with pytest.raises(
                ReaderTimeoutError, match=r"position of partition 0 could not be read within 0\.05 s"
            ):
                await narrow.wait_for((0, 0), timeout=0.05)


async def test_a_summary_and_an_export_are_of_one_moment(world: Deployment, reader: Reader) -> None:
    twin = await varied(world)
    session = await twin.applied(reader)
    pieces = session.export_stream()
    begun = await anext(pieces)
    offset = await world.send(b"{}", b"run-1", EventType.CLEAR.wire)
    await reader.wait_for((0, offset), timeout=PATIENCE)
    assert await session.count() == 0
    text = begun + b"".join([piece async for piece in pieces])
    assert text.decode() == twin.manager.export()


async def test_an_export_longer_than_a_page_is_the_same_text(world: Deployment, reader: Reader) -> None:
    offset = 0
    for step in range(45):
        offset = await world.create("s", step=step)
    await reader.wait_for((0, offset), timeout=PATIENCE)
    session = reader.session("s")
    pieces = [piece async for piece in session.export_stream()]
    assert len(pieces) == 46
    assert b"".join(pieces).decode() == await session.export()


async def test_times_that_have_no_year_in_utc_find_what_the_manager_finds(
    world: Deployment, reader: Reader
) -> None:
    twin = await varied(world)
    manager, session = twin.manager, await twin.applied(reader)
    early = datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))
    late = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    for moment in (early, late):
        assert shown(await session.get_since(moment)) == shown(manager.get_since(moment))
    for first, last in itertools.product((early, START, late), repeat=2):
        assert shown(await session.get_between(first, last)) == shown(manager.get_between(first, last))
    assert len(await reader.recent_sessions(active_since=early)) == 1
    assert len(await reader.recent_sessions(active_since=late)) == 0
