"""More partitions for a deployment at work (docs/partitions.md): the page as it is written, and what is refused."""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.cli import WAYPOST, CommandLine, Started, environment
from tests.support.deployment import Deployment, deployment
from tests.support.recovery import PARTITIONS, line, live, run, worked
from tests.support.sharded import rows

from waypost import Topics
from waypost.wire.event_types import EventType
from waypost.wire.topics import partition_of
from waypost_worker.devserver import Servers
from waypost_worker.partition.ports import FencedError, RefusedError

__all__ = ["line", "live"]
PAGE = Path(__file__).parents[2] / "docs" / "partitions.md"
WIDE = 7


def written(replaced: dict[str, str]) -> list[str]:
    """The commands of the page, with other names in place of its own."""
    found = "".join(re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    names = "|".join(map(re.escape, replaced))
    return re.sub(names, lambda name: replaced[name[0]], found).splitlines()


def words(text: str) -> list[str]:
    """The arguments of a command of the page."""
    program, *arguments = shlex.split(text)
    assert program == "waypost", text
    return arguments


def shell(line: CommandLine, text: str) -> Started:
    """Type it into a shell that finds waypost."""
    shim = line.directory / "bin" / "waypost"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(WAYPOST)} "$@"\n')
    shim.chmod(0o755)
    settings = environment(line.settings)
    settings["PATH"] = f"{shim.parent}:{settings['PATH']}"
    return Started(["bash", "-ec", text], line.directory, settings)


async def content(dsns: str) -> dict[str, list[str]]:
    """What is stored, but for places in the log."""
    columns = {
        "sessions": "session_id, counter, policy, checkpoints, last_recorded_at",
        "checkpoints": "session_id, number, imported_id, name, taken_at, data, metadata, pinned, command_id",
        "recent_commands": "session_id, command_id, number",
        "rejected_commands": "session_id, command_id, code, message, value",
    }
    found: dict[str, list[str]] = {}
    for table, names in columns.items():
        per_database = [await rows(dsn, f"select {names} from waypost.{table}") for dsn in dsns.split()]
        found[table] = [repr(sorted(map(tuple, map(str, one)))) for one in per_database]
    return found


async def places(dsns: str) -> list[dict[str, int]]:
    """Where sessions belong, by database."""
    query = "select session_id, partition from waypost.sessions"
    return [{row[0]: row[1] for row in await rows(dsn, query)} for dsn in dsns.split()]


def wide(line: CommandLine, prefix: str) -> CommandLine:
    return CommandLine(line.directory, {**line.settings, "WAYPOST_TOPIC_PREFIX": f"{prefix}-wide"})


async def kinds(here: Deployment) -> list[str]:
    return sorted(
        dict(record.headers)["ce_type"].decode().rpartition(".")[2]
        for records in (await here.results()).values()
        for record in records
    )


async def count_of_results(here: Deployment) -> int:
    return sum(kind != "acquired" for kind in await kinds(here))


async def test_the_page_as_it_is_written(live: Deployment, line: CommandLine, topic_prefix: str) -> None:
    await worked(live, count=600)
    owners = [live.own(partition) for partition in range(PARTITIONS)]
    answered = await count_of_results(live)
    assert (await run(line, "defaults", "--max-checkpoints", "40", "--yes")).code == 0
    await live.answered(answered + PARTITIONS)
    for owner in owners:
        await owner.stop()
    replaced = {
        "--topic-prefix wide": f"--topic-prefix {topic_prefix}-wide",
        "--from-topic-prefix waypost": f"--from-topic-prefix {topic_prefix}",
        "24": str(WIDE),
    }
    create, until, dry, adopt, worker_command, snapshot = written(replaced)
    assert (await run(line, *words(create))).code == 0
    # A command comes while nobody is at work: the loop of the page goes on until it is applied and answered.
    answered = await count_of_results(live)
    (session,) = live.sessions(1, 1)
    await live.create(session, "late", command_id="late")
    left = await run(line, "topics", "drained", "-o", "json")
    assert left.code == 1
    assert [(row["waiting"], row["unanswered"]) for row in left.json] == [(0, 0), (1, 0), (0, 0)]
    assert "not drained: 1 commands wait" in left.err
    waiting = shell(line, until)
    await asyncio.to_thread(waiting.until, "not drained")
    owner = live.own(1)
    await live.answered(answered + 1)
    await owner.stop()
    assert (await asyncio.to_thread(waiting.wait)).code == 0
    before = await content(live.dsn)
    assert all(before.values())

    tried = await run(line, *words(dry), "-o", "json")
    assert (tried.code, tried.json["changed"]) == (0, False), tried.err
    assert max((await places(live.dsn))[0].values()) < PARTITIONS
    done = await run(line, *words(adopt), "-o", "json")
    assert (done.code, done.json["changed"], done.json["unanswered"]) == (0, True, 0), done.err
    assert await content(live.dsn) == before
    (now,) = await places(live.dsn)
    assert now == {name: partition_of(name, WIDE) for name in now}
    assert len(set(now.values())) > PARTITIONS
    positions = await rows(
        live.dsn, "select partition, partitions, next_offset from waypost.partitions order by 1"
    )
    assert [tuple(row) for row in positions] == [(number, WIDE, 0) for number in range(WIDE)]

    forgotten = live.own(2)  # a worker with the old prefix
    await live.until(lambda: bool(forgotten.told.errors(RefusedError)))
    await forgotten.stop()
    live.topics, live.partitions = Topics(f"{topic_prefix}-wide"), WIDE
    worker = line.start(*words(worker_command))
    try:
        await asyncio.to_thread(worker.until, "worker_ready")
        await live.create(session, "late", command_id="late")
        await live.create(session, "new", command_id="new")
        await live.answered(2)
        assert [kind for kind in await kinds(live) if kind != "acquired"] == ["created", "duplicate"]
        assert (await asyncio.to_thread(worker.stop)).code == 0
    finally:
        worker.end()
    assert (await run(line, *words(snapshot))).code == 0


async def test_what_is_not_drained_is_not_given_up(
    live: Deployment, line: CommandLine, topic_prefix: str
) -> None:
    await worked(live, count=200)
    new = wide(line, topic_prefix)
    assert (await run(new, "topics", "create", "--partitions", str(WIDE), "--skip-zombie-test")).code == 0
    adopt = ("topics", "adopt", "--from-topic-prefix", topic_prefix, "--yes")
    before = await places(live.dsn)
    await live.create(live.sessions(0, 1)[0], "late")
    refused = await run(new, *adopt)
    assert refused.code == 1
    assert f"the topics of '{topic_prefix}' are not drained: 1 commands wait" in refused.error
    # Without naming the old topics nothing proves that they are drained, and the count must stay.
    refused = await run(new, "topics", "adopt", "--yes")
    assert refused.code == 1
    assert "was created for 3 partitions, the new topics have 7" in refused.error
    owner = live.own(0)  # killed between its commit and the word that Kafka has the result
    owner.told.hooks.append(lambda: owner.task.cancel() and None)
    await live.until(owner.task.done)
    refused = await run(new, *adopt)
    assert refused.code == 1
    assert "1 results are not known to be in the topic" in refused.error
    assert {name: at for name, at in (await places(live.dsn))[0].items() if name in before[0]} == before[0]
    again = live.own(0)  # takes over, and leaves it drained
    await live.until(lambda: bool(again.told.terms))
    await again.stop()
    assert (await run(new, *adopt)).code == 0


async def test_a_worker_that_runs_meanwhile_is_fenced_or_seen(
    live: Deployment, line: CommandLine, topic_prefix: str
) -> None:
    await worked(live, count=200)
    new = wide(line, topic_prefix)
    assert (await run(new, "topics", "create", "--partitions", str(WIDE), "--skip-zombie-test")).code == 0
    owner = live.own(0)
    await live.until(lambda: bool(owner.told.terms))
    done = await run(new, "topics", "adopt", "--from-topic-prefix", topic_prefix, "--yes")
    assert done.code == 0, done.err
    before = await content(live.dsn)
    await live.create(live.sessions(0, 1)[0], "too late")
    await live.until(lambda: bool(owner.told.errors(FencedError)) and bool(owner.told.errors(RefusedError)))
    assert await content(live.dsn) == before


async def test_policies_that_differ_and_fewer_partitions_are_refused(
    live: Deployment, line: CommandLine, topic_prefix: str
) -> None:
    owners = [live.own(partition) for partition in range(PARTITIONS)]
    await live.send(b'{"max_checkpoints": 5}', None, EventType.CONFIGURE_DEFAULTS.wire, partition=1)
    for partition in range(PARTITIONS):
        await live.create(live.sessions(partition, 1)[0], "n")
    await live.answered(PARTITIONS + 1)
    for owner in owners:
        await owner.stop()
    for count, why in ((2, "there can't be fewer"), (WIDE, "the default policy differs between partitions")):
        prefix = f"{topic_prefix}-{count}"
        new = CommandLine(line.directory, {**line.settings, "WAYPOST_TOPIC_PREFIX": prefix})
        assert (
            await run(new, "topics", "create", "--partitions", str(count), "--skip-zombie-test")
        ).code == 0
        refused = await run(new, "topics", "adopt", "--from-topic-prefix", topic_prefix, "--yes")
        assert (refused.code, why in refused.error) == (1, True), refused.error
    assert [
        tuple(row) for row in await rows(live.dsn, "select distinct partitions from waypost.partitions")
    ] == [(3,)]


@pytest.fixture
async def pair_at_work(servers: Servers, sharded: str, topic_prefix: str) -> AsyncIterator[Deployment]:
    async with deployment(servers.endpoints, sharded, topic_prefix, 2) as made:
        yield made


async def test_over_two_databases_each_session_stays_in_its_own(
    pair_at_work: Deployment, line: CommandLine, topic_prefix: str
) -> None:
    here = pair_at_work
    line = CommandLine(line.directory, {**line.settings, "WAYPOST_POSTGRES_DSN": here.dsn})
    owners = [here.own(partition) for partition in range(2)]
    for partition in range(2):
        await here.send(
            b'{"max_checkpoints": 5}', None, EventType.CONFIGURE_DEFAULTS.wire, partition=partition
        )
        for session in here.sessions(partition, 12):
            await here.create(session, "n")
    await here.answered(26)
    for owner in owners:
        await owner.stop()
    before = await content(here.dsn)
    odd = CommandLine(line.directory, {**line.settings, "WAYPOST_TOPIC_PREFIX": f"{topic_prefix}-odd"})
    assert (await run(odd, "topics", "create", "--partitions", "5", "--skip-zombie-test")).code == 0
    refused = await run(odd, "topics", "adopt", "--from-topic-prefix", topic_prefix, "--yes")
    assert "must divide both" in refused.error
    new = wide(line, topic_prefix)
    assert (await run(new, "topics", "create", "--partitions", "6", "--skip-zombie-test")).code == 0
    adopt = ("topics", "adopt", "--from-topic-prefix", topic_prefix, "--yes")
    assert (await run(new, *adopt)).code == 0
    # One of two that could not commit would be found so, and done again; the other one is left as it is.
    assert (await run(new, *adopt)).code == 0
    assert await content(here.dsn) == before
    for shard, found in enumerate(await places(here.dsn)):
        assert found == {name: partition_of(name, 6) for name in found}
        assert {partition % 2 for partition in found.values()} == {shard}
    here.topics, here.partitions = Topics(f"{topic_prefix}-wide"), 6
    owners = [here.own(partition) for partition in range(6)]
    for session in here.sessions(5, 2):
        for _ in range(7):
            await here.create(session, "more")
    await here.answered(14)
    for owner in owners:
        await owner.stop()
    kept = await rows(here.dsn.split()[1], "select checkpoints from waypost.sessions where partition = 5")
    assert max(row[0] for row in kept) == 5, "the default policy came along to the new partitions"
