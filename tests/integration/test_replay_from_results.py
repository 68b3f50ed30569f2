"""``replay --from-results``: what results tell is rebuilt to the byte, what they don't is said; new topics adopted."""

import asyncio
import signal
from typing import Any

import asyncpg
from tests.support.cli import CommandLine
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment
from tests.support.kill_points import until_blocked
from tests.support.recovery import PARTITIONS, line, live, published, run, worked

from waypost.wire.event_types import EventType
from waypost.wire.topics import Topics
from waypost_worker.kafka.topics import delete_topic

__all__ = ["line", "live"]


async def rows(dsn: str, query: str) -> list[Any]:
    connection: Any = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_all_is_rebuilt_but_what_imports_brought(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=1200)
    plan = await run(line, "replay", "--from-results", "--schema", "side", "--dry-run", "-o", "json")
    assert (plan.code, len(plan.json)) == (0, PARTITIONS)
    rebuilt = await run(line, "replay", "--from-results", "--schema", "side", "-o", "json")
    assert rebuilt.code == 0, rebuilt.err
    lost = {identifier for row in rebuilt.json for identifier in row["lost_imported_ids"]}
    assert lost, "the log has imports"
    assert "imported checkpoints are lost" in rebuilt.err
    assert "rejected commands can't be kept" in rebuilt.err
    assert all(row["log_continues"] for row in rebuilt.json)
    query = (
        "select session_id, number, name, taken_at, recorded_at, data, metadata, pinned from {}.checkpoints"
    )
    mine = await rows(live.dsn, query.format("waypost"))
    other = await rows(live.dsn, query.format("side"))
    gone = {tuple(identifier.rsplit(":", 1)) for identifier in lost}
    assert set(map(repr, other)) == {repr(row) for row in mine if (row[0], str(row[1])) not in gone}
    same = "select session_id, counter, policy from {}.sessions order by session_id"
    assert await rows(live.dsn, same.format("side")) == await rows(live.dsn, same.format("waypost"))
    positions = "select partition, next_offset, anchor, default_policy from {}.partitions order by partition"
    assert await rows(live.dsn, positions.format("side")) == await rows(live.dsn, positions.format("waypost"))


async def test_without_imports_even_the_memory_of_command_ids_is_the_same(
    live: Deployment, line: CommandLine
) -> None:
    session = live.sessions(0, 1)[0]
    for number in range(70):  # compression begins
        await live.create(session, f"n{number % 5}", command_id=f"c{number}", step=number)
    await live.create(session, "again", command_id="c3")
    await live.send(b"{}", session.encode(), EventType.CLEAR.wire, command_id="clear")
    await live.create(session, "after", step=1)
    for partition in range(PARTITIONS):
        live.own(partition)
    await live.answered(73)
    assert (await run(line, "replay", "--from-results", "--schema", "side")).code == 0
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn)
    assert (await run(line, "verify", "--schema", "side")).code == 0


async def test_it_survives_sigkill(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=1200)
    started = line.start("replay", "--from-results", "--schema", "side")
    await asyncio.to_thread(started.until, "rebuild: ")
    await asyncio.to_thread(started.stop, signal.SIGKILL)
    assert (await run(line, "replay", "--from-results", "--schema", "side")).code == 0
    assert (await run(line, "replay", "--from-results", "--schema", "whole")).code == 0
    assert await state_hash(live.dsn, "side") == await state_hash(live.dsn, "whole")


async def test_new_topics_are_adopted_when_the_old_are_lost(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=600)
    before = await rows(live.dsn, "select session_id, number, data from waypost.checkpoints order by 1, 2")
    for topic in (live.topics.commands, live.topics.results):
        await delete_topic(live.connection, topic)
    new = Topics(f"{live.topics.prefix}-second")
    flags = ("--topic-prefix", new.prefix)
    missing = await run(line, "topics", "adopt", *flags)
    assert (missing.code, "does not exist" in missing.error) == (1, True)
    assert (await run(line, "topics", "create", "--partitions", str(PARTITIONS), *flags)).code == 0
    plan = await run(line, "topics", "adopt", "--dry-run", "-o", "json", *flags)
    assert (plan.code, plan.json["applied"], plan.json["changed"]) == (0, 600, False)
    done = await run(line, "topics", "adopt", "-o", "json", *flags)
    assert (done.code, done.json["unanswered"]) == (0, 0)
    live.topics = new
    await published(live, seed=44, count=300)
    for partition in range(PARTITIONS):
        live.own(partition)
    await live.answered(300)
    after = await rows(live.dsn, "select session_id, number, data from waypost.checkpoints order by 1, 2")
    assert set(map(repr, before)) <= set(map(repr, after))
    used = await run(line, "topics", "adopt", *flags)
    assert (used.code, "is not empty" in used.error) == (1, True)
    refused = await run(line, "verify", *flags)
    assert (refused.code, "began under other topics" in refused.err) == (2, True)


async def test_an_adoption_that_is_killed_has_changed_nothing(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=100)
    before = await state_hash(live.dsn)
    flags = ("--topic-prefix", f"{live.topics.prefix}-third")
    assert (await run(line, "topics", "create", "--partitions", str(PARTITIONS), *flags)).code == 0
    connection: Any = await asyncpg.connect(live.dsn)
    try:
        async with connection.transaction():
            # It comes as far as here, and then waits in the middle of its transaction.
            await connection.execute("lock table waypost.recent_commands in exclusive mode")
            started = line.start("topics", "adopt", *flags)
            await until_blocked(connection)
            await asyncio.to_thread(started.stop, signal.SIGKILL)
    finally:
        await connection.close()

    async def rolled_back() -> bool:
        return await state_hash(live.dsn) == before

    await live.until(rolled_back)
    assert (await run(line, "topics", "adopt", *flags)).code == 0
