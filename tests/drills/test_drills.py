"""What operators do when something is lost, as docs/recovery.md says it, and what must hold afterwards."""

import itertools
from collections.abc import Iterator
from typing import Any

import asyncpg
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.drills.documented import Drill, sections
from tests.support.cli import CommandLine
from tests.support.commands import create_body
from tests.support.database_state import state_hash
from tests.support.deployment import Deployment
from tests.support.recovery import PARTITIONS, line, live, published, run, worked

from waypost.wire.envelope import command_headers
from waypost.wire.event_types import EventType
from waypost_worker.devserver import Servers
from waypost_worker.kafka.topics import delete_topic
from waypost_worker.postgres.pool import open_pool

__all__ = ["line", "live"]
_numbers = itertools.count(1)
CHECKPOINTS = "select session_id, number, name, data, pinned from waypost.checkpoints order by 1, 2"


class Databases:
    """Makes databases beside the deployment's own, and moves it to them."""

    def __init__(self, servers: Servers) -> None:
        self._postgres = servers.postgres
        self._names: list[str] = []

    def make(self, template: str | None = None) -> str:
        self._names.append(f"drill_{next(_numbers)}")
        return self._postgres.create_database(self._names[-1], template=template)

    async def backup(self, live: Deployment) -> str:
        """A physical copy of the database as it is now."""
        await live.pool.close()
        copy = self.make(template=live.dsn.rpartition("/")[2])
        live.pool = await open_pool(live.dsn, timeout=5)
        return copy

    async def move(self, live: Deployment, line: CommandLine, dsn: str) -> CommandLine:
        """From now on this is the database, for owners and for the command line."""
        await live.pool.close()
        live.dsn = dsn
        live.pool = await open_pool(dsn, timeout=5)
        return CommandLine(line.directory, {**line.settings, "WAYPOST_POSTGRES_DSN": dsn})

    def drop(self) -> None:
        for name in self._names:
            self._postgres.drop_database(name)


@pytest.fixture
def databases(servers: Servers) -> Iterator[Databases]:
    made = Databases(servers)
    yield made
    made.drop()


async def rows(dsn: str, query: str = CHECKPOINTS) -> list[Any]:
    connection: Any = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def test_the_page_has_these_drills() -> None:
    assert list(sections()) == [
        "Postgres is lost",
        "Postgres was restored from an old base backup",
        "the command topic was trimmed past the position",
        "the topics are lost, Postgres is whole",
        "a wrong default policy was published",
        "a burst of bad commands",
    ]


async def test_postgres_is_lost(live: Deployment, line: CommandLine, databases: Databases) -> None:
    await worked(live, count=500)
    lost = await state_hash(live.dsn)
    await published(live, seed=2, count=100)  # nobody applies these before the loss
    line = await databases.move(live, line, databases.make())
    drill = Drill("Postgres is lost", live, line)
    await drill.rest()
    books = await live.balanced()
    assert books.commands == 600
    assert (await state_hash(live.dsn))["sessions"] != lost["sessions"]


async def test_postgres_was_restored_from_an_old_base_backup(
    live: Deployment, line: CommandLine, databases: Databases
) -> None:
    await worked(live, count=300)
    backup = await databases.backup(live)
    await worked(live, seed=2, count=300, before=300)
    lost = await state_hash(live.dsn)
    line = await databases.move(live, line, backup)
    refused = await run(line, "replay")
    assert (refused.code, "pass --onto-backup" in refused.error) == (1, True)
    drill = Drill("Postgres was restored from an old base backup", live, line)
    await drill.rest()
    assert (await live.balanced()).commands == 600
    assert await state_hash(live.dsn) == lost


async def test_the_command_topic_was_trimmed_past_the_position(
    live: Deployment, line: CommandLine, databases: Databases
) -> None:
    sessions = [session for partition in range(PARTITIONS) for session in live.sessions(partition, 2)]

    async def work(offset: int) -> None:
        for session in sessions:
            for number in range(20):
                await live.create(session, f"n{number % 3}", step=offset + number)
        owners = [live.own(partition) for partition in range(PARTITIONS)]
        await live.answered((offset + 20) * len(sessions))
        for owner in owners:
            await owner.stop()

    await work(0)
    backup = await databases.backup(live)
    await work(20)
    lost = await rows(live.dsn)
    admin = AIOKafkaAdminClient(bootstrap_servers=live.endpoints.bootstrap_servers)
    await admin.start()
    await admin.delete_records(
        {
            TopicPartition(live.topics.commands, partition): RecordsToDelete(60)
            for partition in range(PARTITIONS)
        }
    )
    await admin.close()
    line = await databases.move(live, line, backup)
    drill = Drill("the command topic was trimmed past the position", live, line)
    refused = await drill.step()
    assert "retention removed 20 offsets before they were applied" in refused.err
    await drill.rest()
    assert await rows(live.dsn) == lost
    await live.create(sessions[0], "after", step=99)
    await live.answered(40 * len(sessions) + 1)


async def test_the_topics_are_lost_and_postgres_is_whole(live: Deployment, line: CommandLine) -> None:
    await worked(live, count=400)
    before = await rows(live.dsn)
    session = before[-1][0]
    for topic in (live.topics.commands, live.topics.results):
        await delete_topic(live.connection, topic)
    drill = Drill("the topics are lost, Postgres is whole", live, line)
    drill.values["second"] = f"{live.topics.prefix}-second"
    await drill.rest()
    assert await rows(live.dsn) == before
    (again,) = await rows(
        live.dsn,
        f"select command_id from waypost.checkpoints where session_id = '{session}' and command_id is not null "
        "order by number desc limit 1",
    )
    await live.create(session, "repeated", command_id=again[0])
    await live.create(session, "new", command_id="new")
    await live.answered(2)
    kinds = [
        dict(record.headers)["ce_type"].decode().rpartition(".")[2]
        for records in (await live.results()).values()
        for record in records
    ]
    assert sorted(kind for kind in kinds if kind != "acquired") == ["created", "duplicate"]


async def test_a_wrong_default_policy_was_published(live: Deployment, line: CommandLine) -> None:
    sessions = [session for partition in range(PARTITIONS) for session in live.sessions(partition, 2)]
    for partition in range(PARTITIONS):
        live.own(partition)
    for session in sessions:
        for number in range(12):
            await live.create(session, f"n{number}", step=number)
    await live.answered(12 * len(sessions))
    whole = await rows(live.dsn)
    assert (await run(line, "defaults", "--max-checkpoints", "2", "--yes")).code == 0
    await live.answered(12 * len(sessions) + PARTITIONS)
    for session in sessions:
        await live.create(session, "since", step=12)
    await live.answered(13 * len(sessions) + PARTITIONS)
    assert len(await rows(live.dsn)) == 2 * len(sessions), "the mistake has done its work"
    drill = Drill("a wrong default policy was published", live, line)
    seen = await drill.step()
    drill.values["$WHEN"] = min(event["time"] for event in seen.json)
    await drill.rest()
    healed = await rows(live.dsn)
    assert set(map(repr, whole)) <= set(map(repr, healed))
    assert len(healed) == len(whole) + len(sessions)


async def test_a_burst_of_bad_commands(live: Deployment, line: CommandLine) -> None:
    session, other = live.sessions(0, 2)
    for partition in range(PARTITIONS):
        live.own(partition)
    for number in range(30):
        await live.send(b"{", session.encode())
        headers = command_headers(f"good-{number}", b"/x", EventType.CREATE.wire, b"2026-11-24T08:00:00Z")
        body = create_body("good", {"n": number})
        await live.send(body, other.encode(), headers=headers, partition=1)
    await live.create(session, "meanwhile")
    await live.answered(61)
    drill = Drill("a burst of bad commands", live, line)
    listed = await drill.step()
    assert len(listed.json) == 30
    await drill.rest()
    assert await rows(live.dsn, 'select "offset" from waypost.rejected_commands') == []
    stored = await rows(live.dsn, f"select data from waypost.checkpoints where session_id = '{other}'")
    assert sorted(orjson.loads(data)["n"] for (data,) in stored) == list(range(30))
